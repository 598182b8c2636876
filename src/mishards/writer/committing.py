"""One commit of a group of writes (P3): encode, upload, one transaction, acknowledge, push.

Large rows are uploaded as they came, while the commits before are in flight. Their group takes them over unless others
in it have overwritten some of them, which is rare: then what is left is encoded anew.

When the outcome of a commit stays unknown, the nonces of its shards are thrown away: the next commit takes fresh ones,
which fence the lost one should it still be on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from mishards.clock import Clock
from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import Commit, File, FileId, FileKind
from mishards.ports import UNDONE, CommitRequest, RequestOutcome, Storage
from mishards.wire.messages import WriteReply
from mishards.writer.drafts import Draft, draft
from mishards.writer.groups import Outcome
from mishards.writer.leases import ShardLeases
from mishards.writer.prepared import PreparedWrite, StoredRows
from mishards.writer.pressure import Pressure
from mishards.writer.publishing import REFUSALS, Publisher
from mishards.writer.shard import Shard
from mishards.writer.uploading import delete_all, discard, put_all

T = TypeVar("T")

SHORT_BYTES = 64 << 10  # decoded, resolved and encoded in well under a millisecond


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

    async def off_loop(self, bytes: int, work: Callable[[], T]) -> T:
        """The result of work on that many bytes of rows, done in a thread unless it is short."""
        if bytes <= SHORT_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def store_ahead(self, write: PreparedWrite) -> None:
        """Store the write's large rows before it waits for its commit (I3)."""

        async def store(shard: Shard, nonce: str) -> None:
            path = self._path(shard, nonce, FileKind.ROWS)
            await self._storage.put(path, write.objects[shard])
            write.stored[shard] = StoredRows(path, nonce)

        large = [shard for shard, rows in write.objects.items() if len(rows) > self._settings.inline_bytes_max]
        try:
            await put_all([partial(store, shard, await self._leases.hold(shard)) for shard in large])
        except MishardsError:
            await self.discard_stored(write)
            raise

    async def discard_stored(self, write: PreparedWrite) -> None:
        """Delete what was stored for the write and no commit request has taken over."""
        if write.stored:
            await delete_all(self._storage, [stored.path for stored in write.stored.values()])

    async def commit(self, group: Sequence[PreparedWrite]) -> list[Outcome]:
        """One commit of all these writes to one collection; what became of each. One that was done already, by a
        request whose answer was lost, gets that one's answer; one that was given up is refused, and one whose partition
        was dropped meanwhile, or whose collection has another name."""
        try:
            return [await self._commit(group)] * len(group)
        except MishardsError as error:
            if error.detail and error.kind in (Kind.PARTITION_NOT_FOUND, Kind.COLLECTION_NOT_FOUND):
                left = [write for write in group if not _is_about(error, write)]
                return await self._commit_rest(group, left, lambda write, refusal=error: refusal)  # type: ignore[misc]
            if error.kind is not Kind.CONFLICT:
                raise
        known = await self._publisher.outcomes([id for write in group for id in write.ids.values()])
        if not known:
            message = "the metadata service has forgotten why it refused a commit"
            raise MishardsError(Kind.METADATA_UNAVAILABLE, message, detail=UNDONE)
        left = [write for write in group if not known.keys() & set(write.ids.values())]
        return await self._commit_rest(group, left, partial(_known_outcome, known))

    async def _commit_rest(
        self, group: Sequence[PreparedWrite], left: list[PreparedWrite], known: Callable[[PreparedWrite], Outcome]
    ) -> list[Outcome]:
        """Commits what is left of a group without the writes whose outcome is known."""
        again = iter(await self.commit(left)) if left else iter(())
        return [next(again) if write in left else known(write) for write in group]

    async def _commit(self, group: Sequence[PreparedWrite]) -> WriteReply:
        collection_id = group[0].collection_id
        manifest = self._mirror.get(collection_id)
        if manifest is None:
            raise collection_not_found(str(collection_id))
        nonces = {shard: await self._leases.hold(shard) for shard in sorted({s for write in group for s in write.ops})}
        pk = manifest.collection.schema.primary.column
        drafts = await self.off_loop(sum(write.bytes for write in group), partial(draft, group, pk, nonces))
        if not drafts:
            return WriteReply(manifest.version, manifest.ts)
        files, payloads = await self._store_files(drafts, nonces)
        large = {file.id: each.payload for file, each in zip(files, drafts, strict=True) if not file.inline}
        taken = {each.path for each in drafts}
        for write in group:
            for shard in [shard for shard, stored in write.stored.items() if stored.path in taken]:
                del write.stored[shard]
        request = CommitRequest(
            collection_id=collection_id,
            uuid=self._clock.token(),
            kind="write",
            now_ms=self._clock.unix_ms(),
            leases=tuple((shard.lease_name, nonce) for shard, nonce in nonces.items()),
            added=tuple(files),
            payloads=payloads,
            requests=tuple(id for write in group for id in write.ids.values()),
            names=tuple(sorted({write.name for write in group})),
            defined_ts=min(write.defined_ts for write in group),
        )
        commit = await self._publish(request, large, nonces, max(write.ends_s for write in group))
        for file in files:
            if file.kind is FileKind.ROWS:
                self._pressure.add(Shard(file.collection_id, file.shard), file.bytes, commit.version)
        return WriteReply(commit.version, commit.ts)

    async def _store_files(
        self, drafts: Sequence[Draft], nonces: dict[Shard, str]
    ) -> tuple[list[File], dict[FileId, bytes]]:
        """Small ones go along in the commit, large ones to storage first (I3)."""
        first = await self._ids.take(len(drafts))
        files, payloads, uploads = [], {}, []
        for id, each in enumerate(drafts, first):
            path = each.path
            if not path and len(each.payload) <= self._settings.inline_bytes_max:
                payloads[FileId(id)] = bytes(each.payload)
            elif not path:
                path = self._path(each.shard, nonces[each.shard], each.kind)
                uploads.append(partial(self._storage.put, path, each.payload))
            files.append(each.file(FileId(id), path))
        await put_all(uploads)
        return files, payloads

    def _path(self, shard: Shard, nonce: str, kind: FileKind) -> str:
        ending = "rows" if kind is FileKind.ROWS else "tombs"
        return f"{shard.collection_id}/{shard.number}/{nonce}/{self._clock.token()}.{ending}"

    async def _publish(
        self,
        request: CommitRequest,
        large: Mapping[FileId, bytes | memoryview],
        shards: Iterable[Shard],
        ends_s: float,
    ) -> Commit:
        try:
            return await self._publisher.publish(request, ends_s, large)
        except MishardsError as error:
            if error.kind in (Kind.FENCED, Kind.METADATA_UNAVAILABLE):
                for shard in shards:
                    self._leases.forget(shard)
            if error.kind in REFUSALS:
                await discard(self._storage, request.added)
            if error.kind is not Kind.FENCED:
                raise
            raise MishardsError(Kind.NOT_OWNER, f"another writer took over: {error.message}") from error


def _is_about(error: MishardsError, write: PreparedWrite) -> bool:
    """Whether the partition or the name that is not there any more is what this write named."""
    if error.kind is Kind.COLLECTION_NOT_FOUND:
        return write.name == error.detail
    return write.has_rows and str(write.partition_id) == error.detail


def _known_outcome(known: Mapping[str, RequestOutcome], write: PreparedWrite) -> Outcome:
    """Its parts were sent together, so all of them have one outcome."""
    outcomes = [known[id] for id in write.ids.values() if id in known]
    if len(outcomes) < len(write.ids) or not all(outcome.applied for outcome in outcomes):
        return MishardsError(Kind.UNAVAILABLE, "this write was given up by the proxy that sent it")
    newest = max(outcomes, key=lambda outcome: outcome.version)
    return WriteReply(newest.version, newest.ts)
