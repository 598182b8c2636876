"""What roles say to each other: one msgspec struct a message, encoded as msgpack arrays.

Binary fields are memoryviews, after decoding into the received frame (no copy). Scores and keys travel as packed
little-endian arrays, rows as one Arrow IPC stream.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mishards.model import Delta, FileId, NodeId, PartitionId

ANY_PARTITION = PartitionId(0)  # of deletes


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


# ------------------------------------------------------------------------------------------------- proxy -> reader


class SearchPart(Message, frozen=True):
    """One node's part of a search (P7): answer exactly `files` exactly at `version`."""

    collection_id: int
    version: int
    files: tuple[int, ...]
    field_id: int
    queries: memoryview  # (nq, dim) float32
    nq: int
    k: int  # hits per query wanted of this part: offset + limit
    metric: str
    params: dict[str, Any] = {}  # search parameters as the client sent them (ef, nprobe, ...)
    filter: str = ""
    template: dict[str, Any] = {}
    radius: float | None = None  # range search: strictly better than this
    range_filter: float | None = None  # ... and not better than this
    output: tuple[int, ...] = ()  # field ids wanted along with the hits
    deadline_s: float = 30.0  # what remains
    expired_ts: int = 0  # rows of a commit with this hybrid timestamp or an older one are left out
    head: str = ""  # uuid of the commit `version`: on another chain the same number may mean other rows


class SearchHits(Message, frozen=True):
    """A part's answer: for each query its hits, best first (ties by primary key), concatenated."""

    counts: memoryview  # (nq,) int32
    scores: memoryview  # (n,) float32, public metric form
    int_keys: memoryview  # (n,) int64 primary keys; empty for VARCHAR
    text_keys: list[str]  # (n,) VARCHAR primary keys; empty for INT64
    files: memoryview  # (n,) int64 file id of each hit
    positions: memoryview  # (n,) int64 position in that file
    rows: memoryview  # Arrow stream, n rows, columns of `output`; empty without output
    covered: int  # rows of the files answered (I14)
    in_flight: int  # requests this reader is working on (P17)


class QueryPart(Message, frozen=True):
    """One node's part of a query or count: the live rows of `files` at `version` that pass `filter`."""

    collection_id: int
    version: int
    files: tuple[int, ...]
    filter: str = ""
    template: dict[str, Any] = {}
    output: tuple[int, ...] = ()
    limit: int = -1  # the first rows by primary key; -1: all
    after_key: int | str | None = None
    count: bool = False
    with_places: bool = False  # add the int64 columns `$file` and `$position`
    deadline_s: float = 30.0
    expired_ts: int = 0
    head: str = ""


class QueryRows(Message, frozen=True):
    rows: memoryview  # Arrow stream of `output`, sorted by primary key; empty when counting
    count: int
    covered: int
    in_flight: int


class FetchPart(Message, frozen=True):
    """The second step of a large result: these columns of these rows, in this order."""

    collection_id: int
    version: int
    files: memoryview  # (n,) int64
    positions: memoryview  # (n,) int64
    output: tuple[int, ...]
    deadline_s: float = 30.0


class FetchRows(Message, frozen=True):
    rows: memoryview


class ReadyRequest(Message, frozen=True):
    """Long poll: answer when the state is newer than `since`, or after `wait_s`."""

    since: int
    wait_s: float


class ReadyState(Message, frozen=True):
    """Which files a reader answers without loading, per collection, and how far it has applied each collection."""

    epoch: int
    files: dict[int, tuple[int, ...]]
    applied: dict[int, int]
    memory_bytes: int
    in_flight: int


# ------------------------------------------------------------------------------------------------- proxy -> writer


class ShardWrite(Message, frozen=True):
    """What one request changes in one shard, in this order: the deletes, then the rows."""

    shard: int
    rows: memoryview = memoryview(b"")  # fresh rows (segment.fresh), may be empty
    deletes: memoryview = memoryview(b"")  # fresh tombstones (segment.fresh), may be empty


class WriteRequest(Message, frozen=True):
    """One insert, upsert or delete; all of it is in one commit (I10).

    `replaces`: the rows kill older rows of their primary keys (all but inserts with generated keys). `request_id`: the
    same in every repetition, to whichever writer; each shard's part takes effect once. `name`: by which the client
    calls the collection; COLLECTION_NOT_FOUND if that is not its name any more."""

    collection_id: int
    partition_id: int
    schema_ts: int  # `updated_ts` the rows were encoded for
    replaces: bool
    shards: tuple[ShardWrite, ...]
    request_id: str
    name: str
    deadline_s: float = 30.0


def request_part(request_id: str, shard: int) -> str:
    """What one shard's part of a write is recorded under in the metadata service."""
    return f"{request_id}/{shard}"


class WriteReply(Message, frozen=True):
    version: int
    ts: int


class FlushRequest(Message, frozen=True):
    collection_id: int
    deadline_s: float = 300.0


class FlushReply(Message, frozen=True):
    """After it, no row acknowledged before the request is fresh. `files` are the live segments."""

    version: int
    ts: int
    files: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------ every node


class Notice(Message, frozen=True):
    """A push: what a commit changed, or that definitions changed (`delta` None). Only a hint (P9)."""

    delta: Delta | None = None


class Nothing(Message, frozen=True):
    """An empty request or reply."""


class NodeStatus(Message, frozen=True):
    """What `mishards status` and the proxies ask."""

    node: NodeId
    roles: tuple[str, ...]
    state: str
    uptime_s: float
    memory_bytes: int
    in_flight: int
    collections: dict[int, int]  # applied version by collection
    held: dict[int, tuple[FileId, ...]] = {}  # reader: files ready by collection
    floors: dict[int, int] = {}  # by collection the oldest layout whose files it may still ask for (P12)
