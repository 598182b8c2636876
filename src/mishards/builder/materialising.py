"""Materialising deletes: a shard's tombstones go into the delete bitmaps of its segments, which stay as they are.

Each segment gets a new record with the same `segment_id` and shared parts; then nothing needs the tombstones (P6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.builder.attempt import Attempt, Snapshot, all_of
from mishards.builder.policy import Materialise
from mishards.builder.records import with_deletes, with_horizon
from mishards.errors import Kind, MishardsError
from mishards.model import VERSION_COLUMN, File, Part
from mishards.segment.fresh import Tombstones
from mishards.segment.read import open_scalars, read_deletes
from mishards.segment.rewrite import Input, live_mask
from mishards.segment.write import write_deletes


@dataclass(frozen=True, slots=True)
class Kills:
    """Tombstones to apply, and the range of their keys: a segment beside it need not be read."""

    stones: Sequence[tuple[int, Tombstones]]
    key_min: Any
    key_max: Any

    def may_touch(self, segment: File) -> bool:
        if segment.pk_min is None or segment.pk_max is None:
            return True
        return bool(self.key_min <= segment.pk_max and segment.pk_min <= self.key_max)


async def materialise(attempt: Attempt, task: Materialise) -> list[File]:
    """The new records; a segment without a live row gets none."""
    snapshot = await attempt.snapshot()
    inputs = snapshot.inputs(task.inputs)
    newer = snapshot.tombstones_after(min(file.horizon for file in inputs))
    if not newer:
        raise MishardsError(Kind.CONFLICT, "the tombstones are applied already")
    kills = await attempt.compute(_kills, await attempt.tombstones(newer))
    first_id = await attempt.take_ids(len(inputs))
    replacements = await all_of(
        _apply(attempt, snapshot, kills, segment, first_id + number) for number, segment in enumerate(inputs)
    )
    outputs = [file for file in replacements if file is not None]
    await attempt.commit(removed=inputs, added=outputs)
    return outputs


def _kills(stones: Sequence[tuple[int, Tombstones]]) -> Kills:
    keys = pa.chunked_array([each.keys for _, each in stones])
    return Kills(stones, pc.min(keys).as_py(), pc.max(keys).as_py())


async def _apply(attempt: Attempt, snapshot: Snapshot, kills: Kills, segment: File, id: int) -> File | None:
    if not kills.may_touch(segment):
        return with_horizon(segment, id, snapshot.version)
    dead = await _dead_rows(attempt, segment, kills, snapshot.collection.schema.primary.column)
    count = int(np.count_nonzero(dead))
    if count == segment.rows:
        return None
    if count == segment.dead:
        return with_horizon(segment, id, snapshot.version)
    path = attempt.folder / f"deletes-{segment.id}"
    size = await attempt.compute(write_deletes, dead, path, segment.collection_id, segment.shard)
    part = await attempt.upload(path, Part(kind="deletes", path="", bytes=size))
    return with_deletes(segment, id, part, count, snapshot.version)


async def _dead_rows(attempt: Attempt, segment: File, kills: Kills, pk: str) -> NDArray[np.bool_]:
    """Which rows (rows,) are dead, those included that were before."""
    scalars, deletes = segment.part("scalars"), segment.part("deletes")
    if scalars is None:
        raise MishardsError(Kind.INTERNAL, f"segment {segment.segment_id} has no scalars")
    paths = await all_of(attempt.fetch(part) for part in (scalars, deletes) if part is not None)
    dead = await attempt.compute(_apply_kills, segment, kills, pk, *paths)
    if len(dead) != segment.rows or np.count_nonzero(dead) < segment.dead:
        raise MishardsError(
            Kind.INTERNAL,
            f"refused to mask {np.count_nonzero(dead)} of {len(dead)} rows: "
            f"segment {segment.segment_id} lists {segment.dead} of {segment.rows} as dead",
        )
    return dead


def _apply_kills(segment: File, kills: Kills, pk: str, scalars: Path, deletes: Path | None = None) -> NDArray[np.bool_]:
    dead = read_deletes(deletes, segment.rows) if deletes else None
    rows = open_scalars(scalars).select([pk, VERSION_COLUMN])
    return ~live_mask(Input(rows, segment.partition_id, dead), kills.stones, pk)
