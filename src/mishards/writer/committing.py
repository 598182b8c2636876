"""One commit of a group of writes (P3): encode, upload, one transaction, acknowledge, push.

When the outcome of a commit stays unknown, the nonces of its shards are thrown away: the next commit takes fresh ones,
which fence the lost one should it still be on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

from mishards.clock import Clock
from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import Commit, File, FileId, FileKind
from mishards.ports import CommitRequest, Storage
from mishards.wire.messages import WriteReply
from mishards.writer.drafts import Draft, draft
from mishards.writer.leases import Shard, ShardLeases
from mishards.writer.prepared import PreparedWrite
from mishards.writer.pressure import Pressure
from mishards.writer.publishing import REFUSALS, Publisher
from mishards.writer.uploading import discard, put_all


class Committer:
    """Commits groups of writes, each as one commit of its collection (I10)."""

    def __init__(
        self,
        publisher: Publisher,
        storage: Storage,
        mirror: Mirror,
        ids: IdBlocks,
        leases: ShardLeases,
        pressure: Pressure,
        clock: Clock,
        settings: WriterSettings,
        executor: Executor,
    ) -> None:
        self._publisher = publisher
        self._storage = storage
        self._mirror = mirror
        self._ids = ids
        self._leases = leases
        self._pressure = pressure
        self._clock = clock
        self._settings = settings
        self._executor = executor

    async def commit(self, group: Sequence[PreparedWrite]) -> WriteReply:
        """One commit of all these writes to one collection; each of them has the same version."""
        collection_id = group[0].collection_id
        manifest = self._mirror.get(collection_id)
        if manifest is None:
            raise collection_not_found(str(collection_id))
        nonces = {shard: await self._leases.hold(shard) for shard in sorted({s for write in group for s in write.ops})}
        pk = manifest.collection.schema.primary.column
        drafts = await asyncio.get_running_loop().run_in_executor(self._executor, draft, group, pk)
        if not drafts:
            return WriteReply(manifest.version, manifest.ts)
        files, payloads = await self._store_files(drafts, nonces)
        request = CommitRequest(
            collection_id=collection_id,
            uuid=self._clock.token(),
            kind="write",
            now_ms=self._clock.unix_ms(),
            leases=tuple((shard.lease_name, nonce) for shard, nonce in nonces.items()),
            added=tuple(files),
            payloads=payloads,
        )
        commit = await self._publish(request, nonces, max(write.ends_s for write in group))
        for file in files:
            if file.kind is FileKind.ROWS:
                self._pressure.add(Shard(file.collection_id, file.shard), file.bytes)
        return WriteReply(commit.version, commit.ts)

    async def _store_files(
        self, drafts: Sequence[Draft], nonces: dict[Shard, str]
    ) -> tuple[list[File], dict[FileId, bytes]]:
        """Small ones go along in the commit, large ones to storage first (I3)."""
        first = await self._ids.take(len(drafts))
        files, payloads, uploads = [], {}, []
        for id, each in enumerate(drafts, first):
            path = ""
            if len(each.payload) <= self._settings.inline_bytes_max:
                payloads[FileId(id)] = each.payload
            else:
                kind = "rows" if each.kind is FileKind.ROWS else "tombs"
                token = nonces[each.shard]
                path = f"{each.shard.collection_id}/{each.shard.number}/{token}/{self._clock.token()}.{kind}"
                uploads.append(partial(self._storage.put, path, each.payload))
            files.append(each.file(FileId(id), path))
        await put_all(uploads)
        return files, payloads

    async def _publish(self, request: CommitRequest, shards: Iterable[Shard], ends_s: float) -> Commit:
        try:
            return await self._publisher.publish(request, ends_s)
        except MishardsError as error:
            if error.kind in (Kind.FENCED, Kind.METADATA_UNAVAILABLE):
                for shard in shards:
                    self._leases.forget(shard)
            if error.kind in REFUSALS:
                await discard(self._storage, request.added)
            if error.kind is not Kind.FENCED:
                raise
            raise MishardsError(Kind.NOT_OWNER, f"another writer took over: {error.message}") from error
