"""Rewriting segments without their dead rows: several into one (merge), or one by itself.

The kills are the readers' own arithmetic (`segment.kill`), so no answer changes (I12). What is about to be committed is
counted once more: every input row is in the output, or a tombstone or a bitmap has proved it dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mishards.builder.attempt import Attempt, all_of
from mishards.builder.policy import Merge, Rewrite
from mishards.builder.records import new_segment
from mishards.errors import Kind, MishardsError
from mishards.model import Field, File, Part, Schema
from mishards.segment.fresh import Tombstones
from mishards.segment.read import open_rows, read_deletes
from mishards.segment.rewrite import Input, live_mask, live_table
from mishards.segment.write import SegmentFiles, write_segment


@dataclass(frozen=True, slots=True)
class LocalSegment:
    """Verified local copies of a segment's parts."""

    file: File
    scalars: Path
    vectors: Sequence[tuple[Field, Path]]
    deletes: Path | None


async def rewrite(attempt: Attempt, task: Merge | Rewrite) -> list[File]:
    """The new segment; none if every row was dead."""
    snapshot = await attempt.snapshot()
    inputs = snapshot.inputs(task.inputs)
    stones = await attempt.tombstones(snapshot.tombstones_after(min(file.horizon for file in inputs)))
    schema = snapshot.collection.schema
    segments = await all_of(_fetch_segment(attempt, file, schema) for file in inputs)
    made = await attempt.compute(_write_live, segments, stones, schema, attempt.folder)
    outputs: list[File] = []
    if made is not None:
        outputs.append(
            new_segment(
                id=await attempt.take_ids(1),
                collection_id=task.collection_id,
                shard=task.shard,
                partition_id=inputs[0].partition_id,
                rows=made.rows,
                pk_range=(made.pk_min, made.pk_max),
                horizon=snapshot.version,
                parts=await all_of(
                    attempt.upload(part.path, Part(kind=part.kind, path="", bytes=part.bytes, field_id=part.field_id))
                    for part in made.parts
                ),
            )
        )
    await attempt.commit(removed=inputs, added=outputs)
    return outputs


async def _fetch_segment(attempt: Attempt, file: File, schema: Schema) -> LocalSegment:
    scalars, *others = await all_of(attempt.fetch(part) for part in _parts_to_read(file, schema))
    vectors = list(zip(schema.vectors, others, strict=False))
    return LocalSegment(file, scalars, vectors, others[-1] if file.part("deletes") else None)


def _parts_to_read(file: File, schema: Schema) -> list[Part]:
    """Scalars, the vectors of each field, and deletes if there are any."""
    wanted = [file.part("scalars"), *(file.part("vectors", field.id) for field in schema.vectors)]
    if None in wanted:
        raise MishardsError(Kind.INTERNAL, f"segment {file.segment_id} lacks a part: it has {file.parts}")
    return [part for part in (*wanted, file.part("deletes")) if part is not None]


def _write_live(
    segments: Sequence[LocalSegment], stones: Sequence[tuple[int, Tombstones]], schema: Schema, folder: Path
) -> SegmentFiles | None:
    """The live rows of the segments, written to `folder`; None if there are none."""
    inputs = [_open(segment) for segment in segments]
    pk = schema.primary.column
    table = live_table(inputs, stones, pk)
    dead = sum(int(np.count_nonzero(~live_mask(each, stones, pk))) for each in inputs)
    _refuse_loss([segment.file for segment in segments], dead, table.num_rows)
    if table.num_rows == 0:
        return None
    return write_segment(table, schema, folder, segments[0].file.collection_id, segments[0].file.shard)


def _refuse_loss(files: Sequence[File], dead: int, live: int) -> None:
    """INTERNAL unless every listed row is live or proved dead, and all that were listed as dead are."""
    rows, dead_before = sum(file.rows for file in files), sum(file.dead for file in files)
    if live + dead != rows or dead < dead_before:
        raise MishardsError(
            Kind.INTERNAL,
            f"refused to rewrite {rows} rows ({dead_before} listed as dead) as {live} live and {dead} dead ones",
        )


def _open(segment: LocalSegment) -> Input:
    rows = open_rows(segment.scalars, segment.vectors)
    dead = read_deletes(segment.deletes, segment.file.rows) if segment.deletes else None
    return Input(rows, segment.file.partition_id, dead)
