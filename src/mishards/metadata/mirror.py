"""What this process knows of the metadata: every collection's definition and files, kept near by polling and pushes.

Searches are planned from it without a query (P7, P18). A push makes it newer, a slow poll makes it right (P9), and
while the metadata service is down it keeps its view (P14, I17). One task owns all reading; callers of `refresh` share
its rounds as in ReadIndex: whoever asks before a round is sent is served by that round (P10).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import NOTHING, Manifest
from mishards.metadata.payloads import PayloadCache
from mishards.metadata.pinned import PinnedViews
from mishards.model import CollectionId, Delta, File, FileId, Version
from mishards.ports import Head, MetadataStore

log = structlog.get_logger(__name__)

RETRY_S = 1.0  # after a failure: what is asked rarely is soon known again

Callback = Callable[[CollectionId], None]


class Mirror:
    """The manifests of all live collections. Reading it costs no I/O; all methods belong to one event loop."""

    def __init__(self, store: MetadataStore, clock: Clock, poll_s: float = 1.0, keep_removed_s: float = 120.0) -> None:
        self.observed_s = float("-inf")  # monotonic time when the last successful refresh was sent
        self.pinned = PinnedViews(store, clock)
        self._store = store
        self._clock = clock
        self._poll_s = poll_s
        self._keep_removed_s = keep_removed_s
        self._manifests: dict[CollectionId, Manifest] = {}
        self._ddl: dict[CollectionId, int] = {}
        self._names: dict[tuple[str, str], CollectionId] = {}
        self._expiring: deque[tuple[float, CollectionId, Version]] = deque()  # versions that removed files, by age
        self._pushed: PayloadCache[bytes] = PayloadCache()
        self._stored: PayloadCache[bytes | memoryview] = PayloadCache()
        self._callbacks: list[Callback] = []
        self._fork_callbacks: list[Callback] = []
        self._waiting: list[asyncio.Future[None]] = []  # for the next round
        self._served: list[asyncio.Future[None]] = []  # by the round in flight
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._healthy = True

    async def start(self) -> None:
        """Read everything once, then keep polling. METADATA_UNAVAILABLE leaves it stopped."""
        self._task = asyncio.create_task(self._run(), name="metadata mirror")
        try:
            await self.refresh()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        stopped = MishardsError(Kind.UNAVAILABLE, "this node stops")
        _answer(self._served + self._waiting, stopped)
        self._served, self._waiting = [], []

    @property
    def lost(self) -> bool:
        """Whether the metadata service did not answer the last time it was asked."""
        return not self._healthy

    async def refresh(self) -> None:
        """After it, the mirror is at least as fresh as the call: every commit acknowledged before is in it (I7)."""
        if self._task is None:
            raise MishardsError(Kind.UNAVAILABLE, "the metadata mirror is not running")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._wake.set()
        await answer

    async def verify(self, collection_id: CollectionId, version: int, head: str) -> None:
        """Have the collection's manifest know whether its commit `version` is `head`; nothing is learnt while the
        metadata service is lost."""
        try:
            await self.refresh()
            commit = await self._store.find_commit(collection_id, head)
        except MishardsError as error:
            if error.kind is not Kind.METADATA_UNAVAILABLE:
                raise
            return
        manifest = self._manifests.get(collection_id)
        if manifest is not None:
            manifest.learn(version, head, there=commit is not None and commit.version == version)

    def hint(self) -> None:
        """Something changed that no push carried: refresh soon."""
        self._wake.set()

    def find(self, database: str, name: str) -> Manifest | None:
        """The collection of that name or alias."""
        collection_id = self._names.get((database, name))
        return None if collection_id is None else self._manifests[collection_id]

    def get(self, collection_id: CollectionId) -> Manifest | None:
        """The collection of that id, or the view of a pin of that id."""
        return self._manifests.get(collection_id) or self.pinned.get(collection_id)

    def manifests(self) -> list[Manifest]:
        return list(self._manifests.values())

    def on_change(self, callback: Callback) -> Callable[[], None]:
        """`callback(collection_id)` is called, synchronously, after a manifest or definition has changed or vanished.
        It must not block. Call the result to unsubscribe."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def on_fork(self, callback: Callback) -> None:
        """`callback(collection_id)` is called after a collection was read anew because the metadata service has lost
        commits of it that this process had seen."""
        self._fork_callbacks.append(callback)

    def apply(self, delta: Delta) -> bool:
        """Apply a pushed delta if it leaves no gap; True if it is applied or was known. After False: `hint`."""
        manifest = self._manifests.get(delta.collection_id)
        if manifest is None or delta.after > manifest.version or not manifest.precedes(delta):
            return False
        if delta.after < manifest.version < delta.version:  # nothing says whether they are of the same chain
            return False
        if delta.version > manifest.version:
            self._pushed.add(delta.payloads)
            self._merge(manifest, delta)
        return True

    def since(self, collection_id: CollectionId, version: Version) -> Delta | None:
        """What this process knows to have happened after `version`, as a push that carries all that it needs; None if
        it cannot be made here."""
        manifest = self._manifests.get(collection_id)
        delta = None if manifest is None else manifest.since(version)
        if delta is None:
            return None
        inline = [file.id for file in delta.added if file.inline]
        payloads = self._pushed.get(inline)
        return replace(delta, payloads=payloads) if len(payloads) == len(inline) else None

    def keep_stored(self, payloads: Mapping[FileId, bytes | memoryview]) -> None:
        """Contents of fresh files that this process has just put into storage, for `stored`."""
        self._stored.add(payloads)

    def stored(self, ids: Iterable[FileId]) -> dict[FileId, bytes | memoryview]:
        """Those of the contents that are still here; the others are to be read from storage."""
        return self._stored.get(ids)

    async def payload(self, file: File) -> bytes:
        """The inline payload of one file. GONE when its record is deleted."""
        return (await self.payloads([file]))[file.id]

    async def payloads(self, files: Sequence[File]) -> dict[FileId, bytes]:
        """The inline payloads of the files, those not pushed in one query. GONE names one whose record is deleted."""
        found = self._pushed.get(file.id for file in files)
        missing = [file.id for file in files if file.id not in found]
        if missing:
            found |= await self._store.payloads(missing)
        gone = [file for file in files if file.id not in found]
        for file in gone:
            self.vanished(file)
        if gone:
            id = gone[0].id
            raise MishardsError(Kind.GONE, f"file {id} is not in the metadata service any more", detail=str(id))
        return found

    def vanished(self, file: File) -> None:
        """Its content is deleted: so may be that of all files removed before it, and no plan can use them any more."""
        manifest = self._manifests.get(file.collection_id)
        known = None if manifest is None else manifest.files.get(file.id)
        if manifest is None or known is None or not known.removed:
            self.hint()  # the removal is news
        elif manifest.forget_removed(known.removed):
            self._changed(file.collection_id)

    # ------------------------------------------------------------------------------------------------- the one task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s if self._healthy else min(self._poll_s, RETRY_S)):
                    await self._wake.wait()
            self._wake.clear()
            self._served, self._waiting = self._waiting, []
            failure = await self._try_round()
            if failure is not None:  # no need to let those wait who came meanwhile: a server may hang for seconds
                self._served, self._waiting = self._served + self._waiting, []
            _answer(self._served, failure)
            self._served = []

    async def _try_round(self) -> MishardsError | None:
        try:
            await self._round()
        except MishardsError as error:
            if self._healthy:
                log.warning("metadata service lost, the last view stays", error=error.message)
            self._healthy = False
            return error
        except Exception as error:  # a defect must not end the polling: those who wait are told, the next round tries
            log.exception("metadata refresh failed")
            return MishardsError(Kind.INTERNAL, f"metadata refresh failed: {error}")
        if not self._healthy:
            log.info("metadata service answers again")
        self._healthy = True
        return None

    async def _round(self) -> None:
        self._purge()
        sent_s = self._clock.monotonic_s()
        versions = {id: manifest.version for id, manifest in self._manifests.items()}
        heads = await self._store.heads()
        for gone in self._manifests.keys() - {head.collection_id for head in heads}:
            self._forget(gone)
        await self._read_definitions(heads)
        for head in heads:
            if head.collection_id in versions:
                await self._read_files(head, versions[head.collection_id])
        self.observed_s = sent_s

    async def _read_definitions(self, heads: Sequence[Head]) -> None:
        stale = {head.collection_id for head in heads if self._ddl.get(head.collection_id) != head.ddl}
        if not stale:
            return
        definitions = await self._store.collections(sorted(stale))
        deltas = [
            await self._read_delta(collection.id, NOTHING)
            for collection, _ in definitions
            if collection.id not in self._manifests
        ]
        # Nothing is awaited from here on: a new collection appears with its files.
        for gone in self._manifests.keys() & stale - {collection.id for collection, _ in definitions}:
            self._forget(gone)  # dropped since `heads`, with a change that nobody can read any more
        full = {delta.collection_id: delta for delta in deltas if delta is not None}
        for collection, ddl in definitions:
            if collection.id in full:
                self._manifests[collection.id] = Manifest(collection)
                self._manifests[collection.id].load(full[collection.id])
            if collection.id in self._manifests:
                self._manifests[collection.id].collection = collection
                self._ddl[collection.id] = ddl
        self._index_names()
        for collection, _ in definitions:
            self._changed(collection.id)

    async def _read_files(self, head: Head, version_sent: Version) -> None:
        """`version_sent`: ours when `heads` was sent. A smaller one there means another chain: a restored database."""
        manifest = self._manifests.get(head.collection_id)
        if manifest is None:
            return  # dropped
        forked = await self._is_forked(manifest, head, version_sent)
        if head.version <= manifest.version and not forked:
            return
        delta = await self._read_delta(head.collection_id, NOTHING if forked else manifest.version)
        if delta is not None and not forked and not manifest.precedes(delta):
            forked = True
            delta = await self._read_delta(head.collection_id, NOTHING)
        if delta is None:
            self._forget(head.collection_id)
        elif forked or (delta.after == 0 and delta.version > manifest.version):
            known = manifest.version
            if forked:  # nobody may take a part of the new chain for more of the old one, whose ids it may use again
                manifest = self._manifests[head.collection_id] = Manifest(manifest.collection)
                self._pushed, self._stored = PayloadCache(), PayloadCache()
            manifest.load(delta)
            self._changed(head.collection_id)
            if forked:
                self._tell_fork(manifest, known)
        elif delta.version > manifest.version:
            self._merge(manifest, delta)

    async def _is_forked(self, manifest: Manifest, head: Head, version_sent: Version) -> bool:
        """Whether the service has lost commits that this process has seen, by what its newest commit says."""
        if head.version == manifest.version:
            return bool(head.head) and head.head != manifest.head
        if head.version >= version_sent:
            return False
        ours = await self._store.find_commit(manifest.collection.id, manifest.head)
        return ours is None or ours.version != manifest.version  # it may have been put back, under another number

    def _tell_fork(self, manifest: Manifest, known: Version) -> None:
        id = manifest.collection.id
        log.error(
            "metadata service has lost commits, the collection is read anew",
            collection=id,
            known=known,
            now=manifest.version,
        )
        for callback in tuple(self._fork_callbacks):
            callback(id)

    async def _read_delta(self, collection_id: CollectionId, after: Version) -> Delta | None:
        """None when the collection was dropped since `heads`."""
        try:
            return await self._store.delta(collection_id, after)
        except MishardsError as error:
            if error.kind is Kind.COLLECTION_NOT_FOUND:
                return None
            raise

    # ---------------------------------------------------------------------------------------------- changing the view

    def _merge(self, manifest: Manifest, delta: Delta) -> None:
        if manifest.merge(delta):
            self._expiring.append(
                (self._clock.monotonic_s() + self._keep_removed_s, delta.collection_id, delta.version)
            )
        self._changed(delta.collection_id)

    def _forget(self, collection_id: CollectionId) -> None:
        self._manifests.pop(collection_id, None)
        self._ddl.pop(collection_id, None)
        self._index_names()
        self._changed(collection_id)

    def _purge(self) -> None:
        """Drop the files removed long enough ago that no plan of ours uses them."""
        now_s = self._clock.monotonic_s()
        expired: dict[CollectionId, Version] = {}
        while self._expiring and self._expiring[0][0] <= now_s:
            _, collection_id, removed = self._expiring.popleft()
            expired[collection_id] = max(removed, expired.get(collection_id, NOTHING))
        for collection_id, version in expired.items():
            manifest = self._manifests.get(collection_id)
            if manifest is not None and manifest.forget_removed(version):
                self._changed(collection_id)

    def _index_names(self) -> None:
        self._names = {
            (manifest.collection.database, name): id
            for id, manifest in self._manifests.items()
            for name in (manifest.collection.name, *manifest.collection.aliases)
        }

    def _changed(self, collection_id: CollectionId) -> None:
        for callback in tuple(self._callbacks):
            callback(collection_id)


def _answer(futures: Iterable[asyncio.Future[None]], failure: MishardsError | None) -> None:
    for future in futures:
        if future.done():
            continue  # its caller gave up
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(MishardsError(failure.kind, failure.message))
