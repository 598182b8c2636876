"""Building the index parts that a segment lacks.

An index is built over all positions of a segment, dead ones too, so it stays right while deletes go on: if the
segment's record was replaced meanwhile (deletes materialised), the parts are attached to the new record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mishards.builder.attempt import Attempt
from mishards.builder.jobs import write_index
from mishards.builder.policy import BuildIndex
from mishards.builder.records import with_indexes
from mishards.errors import Kind, MishardsError
from mishards.model import Field, File, FileId, Index, Part

ATTACHES_MAX = 5  # tries, each after the record was replaced once more (P15)


async def build_index(attempt: Attempt, task: BuildIndex, threads: int) -> list[File]:
    """The segment's record with the new parts."""
    snapshot = await attempt.snapshot()
    (segment,) = snapshot.inputs(task.inputs)
    parts = [
        await _build_part(attempt, segment, definition, field, threads)
        for definition in task.indexes
        if (field := snapshot.collection.schema.by_id(definition.field_id))
    ]
    for _ in range(ATTACHES_MAX):
        try:
            return [await _attach(attempt, task.segment_id, parts)]
        except MishardsError as error:
            if error.kind is not Kind.CONFLICT:
                raise
    raise MishardsError(Kind.CONFLICT, f"segment {task.segment_id} was replaced {ATTACHES_MAX} times meanwhile")


async def _build_part(attempt: Attempt, segment: File, definition: Index, field: Field, threads: int) -> Part:
    vectors = segment.part("vectors", field.id)
    if vectors is None:
        raise MishardsError(Kind.INTERNAL, f"segment {segment.segment_id} has no vectors of field {field.id}")
    source = await attempt.fetch(vectors)
    about = (segment.rows, segment.collection_id, segment.shard)
    return await build_part(attempt, definition, about, field.dim, source, threads)


async def build_part(
    attempt: Attempt, definition: Index, segment: tuple[int, int, int], dim: int, source: Path, threads: int
) -> Part:
    """The uploaded index over a local vectors part. `segment`: rows, collection id, shard."""
    target = attempt.folder / f"index-{definition.id}"
    kind = attempt.index_kind(definition.type)
    size = await attempt.build(write_index, kind, definition, segment, dim, source, threads, target)
    part = Part(kind="index", path="", bytes=size, field_id=definition.field_id, index_id=definition.id)
    return await attempt.upload(target, part)


async def _attach(attempt: Attempt, segment_id: FileId, parts: Sequence[Part]) -> File:
    """The segment's record of now, replaced by one with those of the parts that are still wanted. CONFLICT if it was
    replaced in between; GONE if the segment was merged away or its indexes dropped."""
    snapshot = await attempt.snapshot()
    current = next((file for file in snapshot.files if file.segment_id == segment_id), None)
    defined = {index.id for index in snapshot.collection.indexes}
    wanted = [part for part in parts if part.index_id in defined]
    if current is None or not wanted:
        raise MishardsError(Kind.GONE, f"segment {segment_id} or its index is not wanted any more")
    replacement = with_indexes(current, await attempt.take_ids(1), wanted)
    await attempt.commit(removed=[current], added=[replacement])
    return replacement
