"""Every limit of a schema, a row and a request that clients can meet, as Milvus sets them, and the checks of numbers.

The values are Milvus' defaults, so that what works there works here and messages name the same numbers.
"""

from __future__ import annotations

from mishards.errors import Kind, MishardsError

NAME_LENGTH_MAX = 255  # collections, aliases, partitions, fields, indexes
FIELDS_MAX = 64
VECTOR_FIELDS_MAX = 4
DIM_MAX = 32768
VARCHAR_BYTES_MAX = 65535
JSON_BYTES_MAX = 65536
SHARDS_MAX = 16
PARTITIONS_MAX = 1024
NQ_MAX = 16384
TOPK_MAX = 16384  # of the limit, and of offset + limit


def check_search_window(nq: int, limit: int, offset: int) -> None:
    """Refuse a search for too many queries or hits, in Milvus' words."""
    if not 1 <= nq <= NQ_MAX:
        raise _out_of_range(
            f"nq [{nq}] is invalid, nq (number of search vector per search request) should be in range [1, {NQ_MAX}], "
            f"but got {nq}"
        )
    if not 1 <= limit <= TOPK_MAX:
        raise _out_of_range(f"topk [{limit}] is invalid, top k should be in range [1, {TOPK_MAX}], but got {limit}")
    _check_offset(limit, offset)


def check_query_window(limit: int | None, offset: int) -> None:
    """Refuse a query for too many rows, in Milvus' words. A query without a limit is not bounded here."""
    if limit is None:
        return
    if limit < 1:
        raise _out_of_range(f"invalid max query result window, limit [{limit}] is invalid, should be greater than 0")
    _check_offset(limit, offset)


def _check_offset(limit: int, offset: int) -> None:
    if offset < 0:
        raise _out_of_range(f"offset [{offset}] is invalid, should be gte than 0")
    window = offset + limit
    if window > TOPK_MAX:
        raise _out_of_range(
            f"invalid max query result window, (offset+limit) should be in range [1, {TOPK_MAX}], but got {window}"
        )


def _out_of_range(message: str) -> MishardsError:
    return MishardsError(Kind.UNEXPECTED, message)  # the kind that Milvus gives these
