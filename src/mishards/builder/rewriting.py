"""Rewriting segments without their dead rows: several into one (merge), or one by itself.

The kills are the readers' own arithmetic (`segment.kill`), so no answer changes (I12), and rows that expired long ago
are in no answer any more. What is about to be committed is counted once more: every input row is in the output, or a
tombstone, a bitmap or its age has proved it dead.
"""

from __future__ import annotations

from mishards.builder.attempt import Attempt, all_of
from mishards.builder.indexing import build_part
from mishards.builder.jobs import LocalSegment, write_live
from mishards.builder.policy import Merge, Rewrite, worthwhile_indexes
from mishards.builder.records import new_segment
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, File, Part, Schema
from mishards.schema.expiry import DROP_MARGIN_S, expired_ts
from mishards.segment.write import SegmentFiles


async def rewrite(attempt: Attempt, task: Merge | Rewrite, threads: int, values_min: int = 0) -> list[File]:
    """The new segment; none if every row was dead. It has its indexes, but for those over fewer than `values_min`
    numbers."""
    snapshot = await attempt.snapshot()
    inputs = snapshot.inputs(task.inputs)
    stones = await attempt.tombstones(snapshot.tombstones_after(min(file.horizon for file in inputs)))
    schema = snapshot.collection.schema
    segments = await all_of(_fetch_segment(attempt, file, schema) for file in inputs)
    gone_ts = expired_ts(snapshot.collection.properties, attempt.unix_ms(), DROP_MARGIN_S)
    made = await attempt.build(write_live, segments, stones, schema, attempt.folder, gone_ts)
    outputs: list[File] = []
    if made is not None:
        (await attempt.snapshot()).inputs(task.inputs)  # what follows may take minutes: not for nothing
        parts = [
            *await all_of(
                attempt.upload(part.path, Part(kind=part.kind, path="", bytes=part.bytes, field_id=part.field_id))
                for part in made.parts
            ),
            *await _build_indexes(attempt, snapshot.collection, task, made, threads, values_min),
        ]
        outputs.append(
            new_segment(
                id=await attempt.take_ids(1),
                collection_id=task.collection_id,
                shard=task.shard,
                partition_id=inputs[0].partition_id,
                inputs=inputs,
                made=made,
                horizon=snapshot.version,
                parts=parts,
            )
        )
    await attempt.commit(removed=inputs, added=outputs)
    return outputs


async def _build_indexes(
    attempt: Attempt, collection: Collection, task: Merge | Rewrite, made: SegmentFiles, threads: int, values_min: int
) -> list[Part]:
    """The new segment's indexes, so that no search ever reads all of it: until it comes the inputs' ones serve."""
    vectors = {part.field_id: part.path for part in made.parts if part.kind == "vectors"}
    return [
        await build_part(
            attempt, definition, (made.rows, task.collection_id, task.shard), dim, vectors[definition.field_id], threads
        )
        for definition, dim in worthwhile_indexes(collection, made.rows, attempt.index_kind, values_min)
    ]


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
