"""The rows that a flush or a merge keeps (P5): the inputs without what tombstones kill, nothing else.

Flush gives it the fresh rows of one partition, merge gives it segments; both write the result with `write_segment`. The
answer of no search changes, because a kill here is the same arithmetic that readers apply (`kill`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.errors import Kind, MishardsError
from mishards.model import TS_COLUMN, VERSION_COLUMN
from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex
from mishards.segment.kill import killed


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One file to rewrite. `rows`: sorted by primary key, with `VERSION_COLUMN`. `dead` (rows,): killed already."""

    rows: pa.Table
    partition_id: int
    dead: NDArray[np.bool_] | None = None


def versioned(rows: pa.RecordBatch, version: int, ts: int = 0) -> pa.Table:
    """Fresh rows as a table with version and hybrid timestamp of their commit, as `Input` wants them."""
    table = pa.Table.from_batches([rows])
    for name, value in ((VERSION_COLUMN, version), (TS_COLUMN, ts)):
        table = table.append_column(name, pa.array(np.full(rows.num_rows, value, np.int64)))
    return table


def live_table(
    inputs: Sequence[Input], tombstones: Sequence[tuple[int, Tombstones]], pk: str, expired_ts: int = 0
) -> pa.Table:
    """The live rows of all inputs, sorted by primary key.

    `tombstones`: (version of their commit, tombstones), all those after any input's horizon; the ones that an input has
    applied already kill nothing more in it. `pk`: name of the primary key's column. `expired_ts`: rows of a known
    timestamp up to it are left out. At least one input; all have the same columns, but for `TS_COLUMN`. INTERNAL if
    two live rows have one key: then a tombstone is missing, and nothing may be written.
    """
    tables = [_with_ts(each.rows) for each in inputs]
    rows = pa.concat_tables([table.select(tables[0].column_names) for table in tables])
    live = np.flatnonzero(np.concatenate([live_mask(each, tombstones, pk, expired_ts) for each in inputs]))
    keys = rows.column(pk).take(live)
    order = np.asarray(pc.sort_indices(keys), dtype=np.int64)
    _refuse_doubles(keys.take(order))
    return rows.take(live[order])


def live_mask(
    each: Input, tombstones: Sequence[tuple[int, Tombstones]], pk: str, expired_ts: int = 0
) -> NDArray[np.bool_]:
    """Which rows (rows,) of an input no tombstone kills and time has not either."""
    live = np.ones(each.rows.num_rows, bool) if each.dead is None else ~each.dead
    key_index = KeyIndex(_one_chunk(each.rows.column(pk)))
    versions = _one_chunk(each.rows.column(VERSION_COLUMN)).to_numpy()
    for version, stones in tombstones:
        live[killed(key_index, versions, each.partition_id, stones, version)] = False
    if expired_ts and TS_COLUMN in each.rows.column_names:
        live &= ~expired(_one_chunk(each.rows.column(TS_COLUMN)).to_numpy(), expired_ts)
    return live


def expired(ts: NDArray[np.int64], expired_ts: int) -> NDArray[np.bool_]:
    """Which rows (rows,) of these timestamps are expired; those of unknown time never are."""
    return (ts <= expired_ts) & (ts > 0)


def _with_ts(rows: pa.Table) -> pa.Table:
    """Rows that were written before timestamps were kept get the unknown one."""
    if TS_COLUMN in rows.column_names:
        return rows
    return rows.append_column(TS_COLUMN, pa.array(np.zeros(rows.num_rows, np.int64)))


def _one_chunk(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    array: pa.Array[Any] = column.chunks[0] if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return array


def _refuse_doubles(keys: pa.ChunkedArray[Any]) -> None:
    """`keys` in ascending order."""
    if len(keys) < 2:
        return
    double = pc.index(pc.equal(keys[:-1], keys[1:]), True).as_py()
    if double >= 0:
        raise MishardsError(Kind.INTERNAL, f"primary key {keys[double].as_py()!r} has two live rows")
