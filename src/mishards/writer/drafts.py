"""The files of a commit before they have ids: pure and CPU-bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from mishards.model import File, FileId, FileKind, Part, PartitionId
from mishards.segment.fresh import encode_rows, encode_tombstones
from mishards.segment.resolve import resolve
from mishards.writer.prepared import PreparedWrite
from mishards.writer.shard import Shard


class Draft(NamedTuple):
    """One fresh file of a shard: rows of one partition, or the tombstones. `path`: where it lies already, or ""."""

    shard: Shard
    kind: FileKind
    rows: int
    payload: bytes | memoryview
    partition_id: PartitionId = PartitionId(0)
    pk_min: int | str | None = None
    pk_max: int | str | None = None
    path: str = ""

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


def draft(group: Sequence[PreparedWrite], pk: str, nonces: Mapping[Shard, str]) -> list[Draft]:
    """What the group leaves of its requests in their order, by shard (P4). `pk`: column of the primary key. `nonces` of
    all shards: rows stored under another one are not used (P1)."""
    return [draft for shard, nonce in nonces.items() for draft in _draft_shard(shard, group, pk, nonce)]


def _draft_shard(shard: Shard, group: Sequence[PreparedWrite], pk: str, nonce: str) -> list[Draft]:
    writes = [write for write in group if shard in write.ops]
    stored = {n for n, write in enumerate(writes) if shard in write.stored and write.stored[shard].nonce == nonce}
    resolved = resolve([write.ops[shard] for write in writes], pk, stored)
    drafts = []
    for write in (writes[number] for number in resolved.whole):
        op = write.ops[shard]
        assert op.rows is not None
        drafts.append(_rows_draft(shard, op.partition_id, op.rows, pk, write.objects[shard], write.stored[shard].path))
    for partition_id, rows in resolved.rows.items():
        payload = encode_rows(rows, shard.collection_id, shard.number)
        drafts.append(_rows_draft(shard, partition_id, rows, pk, payload))
    stones = resolved.tombstones
    if stones is not None:
        drafts.append(
            Draft(
                shard,
                FileKind.TOMBSTONES,
                len(stones),
                encode_tombstones(stones, shard.collection_id, shard.number),
            )
        )
    return drafts


def _rows_draft(
    shard: Shard, partition_id: int, rows: pa.RecordBatch, pk: str, payload: memoryview, path: str = ""
) -> Draft:
    """`rows` sorted by primary key."""
    keys = rows.column(pk)
    low, high = keys[0].as_py(), keys[-1].as_py()
    return Draft(shard, FileKind.ROWS, rows.num_rows, payload, PartitionId(partition_id), low, high, path)
