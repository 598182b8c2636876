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
from mishards.model import VERSION_COLUMN
from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex
from mishards.segment.kill import killed


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One file to rewrite. `rows`: sorted by primary key, with `VERSION_COLUMN`. `dead` (rows,): killed already."""

    rows: pa.Table
    partition_id: int
    dead: NDArray[np.bool_] | None = None


def versioned(rows: pa.RecordBatch, version: int) -> pa.Table:
    """Fresh rows as a table with the version of their commit, as `Input` wants them."""
    versions = pa.array(np.full(rows.num_rows, version, np.int64))
    return pa.Table.from_batches([rows]).append_column(VERSION_COLUMN, versions)


def live_table(inputs: Sequence[Input], tombstones: Sequence[tuple[int, Tombstones]], pk: str) -> pa.Table:
    """The live rows of all inputs, sorted by primary key.

    `tombstones`: (version of their commit, tombstones), all those after any input's horizon; the ones that an input has
    applied already kill nothing more in it. `pk`: name of the primary key's column. At least one input; all have the
    same columns. INTERNAL if two live rows have one key: then a tombstone is missing, and nothing may be written.
    """
    rows = pa.concat_tables([each.rows.select(inputs[0].rows.column_names) for each in inputs])
    live = np.flatnonzero(np.concatenate([live_mask(each, tombstones, pk) for each in inputs]))
    keys = rows.column(pk).take(live)
    order = np.asarray(pc.sort_indices(keys), dtype=np.int64)
    _refuse_doubles(keys.take(order))
    return rows.take(live[order])


def live_mask(each: Input, tombstones: Sequence[tuple[int, Tombstones]], pk: str) -> NDArray[np.bool_]:
    """Which rows (rows,) of an input no tombstone kills."""
    live = np.ones(each.rows.num_rows, bool) if each.dead is None else ~each.dead
    key_index = KeyIndex(_one_chunk(each.rows.column(pk)))
    versions = _one_chunk(each.rows.column(VERSION_COLUMN)).to_numpy()
    for version, stones in tombstones:
        live[killed(key_index, versions, each.partition_id, stones, version)] = False
    return live


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
