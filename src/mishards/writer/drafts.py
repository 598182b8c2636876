"""The files of a commit before they have ids: pure, CPU-bound, made in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mishards.model import File, FileId, FileKind, Part, PartitionId
from mishards.segment.fresh import encode_rows, encode_tombstones
from mishards.segment.resolve import resolve
from mishards.writer.leases import Shard
from mishards.writer.prepared import PreparedWrite


class Draft(NamedTuple):
    """One fresh file of a shard: the rows of one partition, or the tombstones."""

    shard: Shard
    kind: FileKind
    rows: int
    payload: bytes
    partition_id: PartitionId = PartitionId(0)
    pk_min: int | str | None = None
    pk_max: int | str | None = None

    def file(self, id: FileId, path: str) -> File:
        """The record of it; `path` "" when the payload lies in the metadata service."""
        return File(
            id=id,
            collection_id=self.shard.collection_id,
            shard=self.shard.number,
            kind=self.kind,
            rows=self.rows,
            bytes=len(self.payload),
            partition_id=self.partition_id,
            pk_min=self.pk_min,
            pk_max=self.pk_max,
            parts=(Part(kind="fresh", path=path, bytes=len(self.payload)),),
            inline=not path,
        )


def draft(group: Sequence[PreparedWrite], pk: str) -> list[Draft]:
    """What the group leaves of its requests in their order, by shard (P4). `pk`: column of the primary key."""
    shards = sorted({shard for write in group for shard in write.ops})
    return [draft for shard in shards for draft in _draft_shard(shard, group, pk)]


def _draft_shard(shard: Shard, group: Sequence[PreparedWrite], pk: str) -> list[Draft]:
    resolved = resolve([write.ops[shard] for write in group if shard in write.ops], pk)
    drafts = []
    for partition_id, rows in resolved.rows.items():
        keys = rows.column(pk)
        drafts.append(
            Draft(
                shard,
                FileKind.ROWS,
                rows.num_rows,
                encode_rows(rows, shard.collection_id, shard.number),
                PartitionId(partition_id),
                keys[0].as_py(),
                keys[len(keys) - 1].as_py(),
            )
        )
    stones = resolved.tombstones
    if stones is not None:
        payload = encode_tombstones(stones, shard.collection_id, shard.number)
        drafts.append(Draft(shard, FileKind.TOMBSTONES, len(stones), payload))
    return drafts
