"""The order inside a commit, resolved: many writes to one shard become at most one row per primary key (P4).

A commit groups the writes that arrived while the one before was in flight (P3). Each is applied in its order: first its
deletes, then its rows. What survives all of them is committed; all rows of a commit have its version, so nothing that
remains may depend on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.segment.fresh import Tombstones, batch_tombstones, concat, tombstones_batch, tombstones_of
from mishards.segment.ipc import single_batch
from mishards.segment.keys import KeyIndex


@dataclass(frozen=True, slots=True, eq=False)
class WriteOp:
    """One write to one shard: `deletes`, then `rows` into partition `partition_id`.

    `replaces`: the rows kill older rows of their keys in every partition (all but inserts with generated keys).
    """

    rows: pa.RecordBatch | None
    partition_id: int
    replaces: bool
    deletes: Tombstones | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """`rows`: by partition, sorted by primary key, each key once over all partitions. `tombstones`: without doubles."""

    rows: dict[int, pa.RecordBatch]
    tombstones: Tombstones | None


def resolve(ops: Sequence[WriteOp], pk: str) -> Resolved:
    """What a commit of these writes, in this order, holds. `pk`: name of the primary key's column."""
    return Resolved(_surviving(ops, pk), _union(ops, pk))


def _union(ops: Sequence[WriteOp], pk: str) -> Tombstones | None:
    """The deletes, and a tombstone for each key that a row replaces."""
    parts = [op.deletes for op in ops if op.deletes is not None and len(op.deletes)]
    written = [op.rows.column(pk) for op in ops if op.replaces and op.rows is not None and op.rows.num_rows]
    if written:
        parts.append(tombstones_of(pc.unique(pa.concat_arrays(written))))
        if len(parts) == 1:
            return parts[0]
    if not parts:
        return None
    table = pa.Table.from_batches([tombstones_batch(concat(parts))])
    distinct = table.group_by(table.column_names, use_threads=False).aggregate([])
    return batch_tombstones(single_batch(distinct))


def _surviving(ops: Sequence[WriteOp], pk: str) -> dict[int, pa.RecordBatch]:
    """By partition, the last row of each key unless a later delete removes it."""
    written = [(number, op, op.rows) for number, op in enumerate(ops) if op.rows is not None and op.rows.num_rows]
    if not written:
        return {}
    lengths = [rows.num_rows for _, _, rows in written]
    order = _last_of_each_key(pa.concat_arrays([rows.column(pk) for _, _, rows in written]))
    table = pa.Table.from_batches([rows for _, _, rows in written])
    op_numbers = np.repeat([number for number, _, _ in written], lengths)[order]
    partitions = np.repeat([op.partition_id for _, op, _ in written], lengths)[order]

    alive = ~_deleted_later(KeyIndex(table.column(pk).combine_chunks().take(order)), op_numbers, partitions, ops)
    return {
        int(partition): single_batch(table.take(order[alive & (partitions == partition)]))
        for partition in np.unique(partitions[alive])
    }


def _last_of_each_key(keys: pa.Array[Any]) -> NDArray[np.int64]:
    """Positions of the last row of each key, in the order of the keys."""
    order = pc.sort_indices(keys)  # stable: rows of one key stay in their order
    ranked = keys.take(order)
    last = np.ones(len(keys), bool)
    last[:-1] = np.asarray(pc.not_equal(ranked[:-1], ranked[1:]))
    return np.asarray(order, dtype=np.int64)[last]


def _deleted_later(
    key_index: KeyIndex, op_numbers: NDArray[np.int64], partitions: NDArray[np.int64], ops: Sequence[WriteOp]
) -> NDArray[np.bool_]:
    """Which rows a later write's delete removes; never one with `below` set, which saw older versions only."""
    dead = np.zeros(len(key_index), bool)
    for number, op in enumerate(ops):
        if op.deletes is None:
            continue
        at = key_index.find(op.deletes.keys)
        hit = (at >= 0) & (op.deletes.below == 0) & (op_numbers[at] < number)
        hit &= (op.deletes.partitions == 0) | (op.deletes.partitions == partitions[at])
        dead[at[hit]] = True
    return dead
