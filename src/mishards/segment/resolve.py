"""The order inside a commit, resolved: many writes to one shard become at most one row per primary key (P4).

A commit groups the writes that arrived while the one before was in flight (P3). Each is applied in its order: first its
deletes, then its rows. What survives all of them is committed; all rows of a commit have its version, so nothing that
remains may depend on the order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.segment.fresh import Tombstones, batch_tombstones, concat, tombstones_batch, tombstones_of
from mishards.segment.ipc import single_batch
from mishards.segment.keys import KeyIndex, ascending, last_of_each_key


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
    """`rows`: by partition, sorted by primary key, each key once over all partitions. `tombstones`: without doubles.

    `whole`: numbers of the writes all of whose rows survive, as they are, beside `rows`."""

    rows: dict[int, pa.RecordBatch]
    tombstones: Tombstones | None
    whole: tuple[int, ...] = ()


def resolve(ops: Sequence[WriteOp], pk: str, stored: Collection[int] = ()) -> Resolved:
    """What a commit of these writes, in this order, holds. `pk`: name of the primary key's column. `stored`: numbers of
    writes whose rows, sorted and each key once, are an object already and better stay one."""
    rows, whole = _surviving(ops, pk, stored)
    return Resolved(rows, _union(ops, pk), whole)


def _union(ops: Sequence[WriteOp], pk: str) -> Tombstones | None:
    """The deletes, and a tombstone for each key that a row replaces."""
    parts = [op.deletes for op in ops if op.deletes is not None and len(op.deletes)]
    written = [op.rows.column(pk) for op in ops if op.replaces and op.rows is not None and op.rows.num_rows]
    if written:
        keys = pa.concat_arrays(written)
        parts.append(tombstones_of(keys if ascending(keys) else pc.unique(keys)))
        if len(parts) == 1:
            return parts[0]
    if not parts:
        return None
    table = pa.Table.from_batches([tombstones_batch(concat(parts))])
    distinct = table.group_by(table.column_names, use_threads=False).aggregate([])
    return batch_tombstones(single_batch(distinct))


def _surviving(
    ops: Sequence[WriteOp], pk: str, stored: Collection[int]
) -> tuple[dict[int, pa.RecordBatch], tuple[int, ...]]:
    """The last row of each key unless a later delete removes it: by partition, and the stored writes left whole."""
    written = [(number, op, op.rows) for number, op in enumerate(ops) if op.rows is not None and op.rows.num_rows]
    if not written:
        return {}, ()
    lengths = [rows.num_rows for _, _, rows in written]
    keys = pa.concat_arrays([rows.column(pk) for _, _, rows in written])
    order = last_of_each_key(keys)
    op_numbers = np.repeat([number for number, _, _ in written], lengths)[order]
    partitions = np.repeat([op.partition_id for _, op, _ in written], lengths)[order]
    alive = ~_deleted_later(KeyIndex(_taken(keys, order)), op_numbers, partitions, ops)

    counts = np.bincount(op_numbers[alive], minlength=len(ops))
    whole = tuple(number for number, _, rows in written if number in stored and counts[number] == rows.num_rows)
    if whole:
        alive &= ~np.isin(op_numbers, whole)
    left = np.unique(partitions[alive])
    if len(left) == 0:
        return {}, whole
    table = pa.Table.from_batches([rows for _, _, rows in written])
    return {
        int(partition): single_batch(_taken(table, order[alive & (partitions == partition)])) for partition in left
    }, whole


def _taken(rows: Any, positions: NDArray[np.int64]) -> Any:
    """The rows of an array or table at these positions, as they are if that is all of them in order."""
    if len(positions) == len(rows) and (positions[1:] > positions[:-1]).all():
        return rows
    return rows.take(positions)


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
