"""The records that layout commits list: which fields of its inputs an output keeps, and how far it has applied deletes.

An output's horizon is the version up to which all tombstones of its shard were read and applied: those newer than an
input's horizon were live at that version (P6), those up to it the input had applied already (P5).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from mishards.model import CollectionId, File, FileId, FileKind, Part, PartitionId, Version
from mishards.segment.write import SegmentFiles


def new_segment(
    id: int,
    collection_id: CollectionId,
    shard: int,
    partition_id: PartitionId,
    inputs: Sequence[File],
    made: SegmentFiles,
    horizon: Version,
    parts: Sequence[Part],
) -> File:
    """A segment of the rows of `inputs` at version `horizon`, rewritten: a new thing to place, without dead rows."""
    return File(
        id=FileId(id),
        collection_id=collection_id,
        shard=shard,
        kind=FileKind.SEGMENT,
        rows=made.rows,
        bytes=_bytes(parts),
        partition_id=partition_id,
        segment_id=FileId(id),
        horizon=horizon,
        pk_min=made.pk_min,
        pk_max=made.pk_max,
        sources=tuple(file.segment_id for file in inputs),
        made=horizon,
        oldest_ts=made.oldest_ts,
        newest_ts=made.newest_ts,
        parts=tuple(parts),
    )


def with_indexes(segment: File, id: int, indexes: Sequence[Part]) -> File:
    """The same segment with these index parts, and without older ones of their fields."""
    fields = {part.field_id for part in indexes}
    kept = [part for part in segment.parts if part.kind != "index" or part.field_id not in fields]
    return _replacement(segment, id, [*kept, *indexes])


def with_deletes(segment: File, id: int, deletes: Part, dead: int, horizon: Version) -> File:
    """The same segment with this delete bitmap, which masks `dead` rows."""
    kept = [part for part in segment.parts if part.kind != "deletes"]
    return replace(_replacement(segment, id, [*kept, deletes]), dead=dead, horizon=horizon)


def with_horizon(segment: File, id: int, horizon: Version) -> File:
    """The same segment, known to hold no row that a tombstone up to `horizon` kills."""
    return replace(_replacement(segment, id, segment.parts), horizon=horizon)


def _replacement(segment: File, id: int, parts: Sequence[Part]) -> File:
    return replace(
        segment, id=FileId(id), added=Version(0), removed=Version(0), parts=tuple(parts), bytes=_bytes(parts)
    )


def _bytes(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)
