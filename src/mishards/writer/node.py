"""The writer (P2, P3): one process' part in changing data and definitions. Assembled, started and stopped here.

A write is checked, waits for its collection's next commit and is answered when that commit is durable. What fresh rows
become afterwards (segments, indexes) is no part of the answer.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mishards.clock import Clock
from mishards.config import WriterSettings
from mishards.errors import MishardsError, collection_not_found
from mishards.metadata.ids import IdBlocks
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, CollectionId, FileKind, NodeId
from mishards.ports import MetadataStore, Storage
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.wire.definitions import DefineReply, DefineRequest
from mishards.wire.messages import ANY_PARTITION, FlushReply, FlushRequest, WriteReply, WriteRequest
from mishards.writer.background import BackgroundSealing
from mishards.writer.committing import Committer
from mishards.writer.definitions import Definitions
from mishards.writer.forgetting import Forgetting
from mishards.writer.groups import Groups, stopping
from mishards.writer.leases import ShardLeases
from mishards.writer.metrics import shard_samples
from mishards.writer.others import Others
from mishards.writer.owning import Owning
from mishards.writer.prepared import prepare, request_bytes
from mishards.writer.pressure import Pressure
from mishards.writer.publishing import Announce, Publisher
from mishards.writer.sealing import Sealer
from mishards.writer.shard import Shard

T = TypeVar("T")
_log = structlog.get_logger(__name__)
RequestKey = tuple[str, tuple[int, ...]]  # its id and shards

THREADS = 4  # encoding commits and writing segments
PUT_BACK_PAUSE_S = 1.0  # before lost commits are put back once more
ANSWERS_MAX = 10_000  # of recent writes, kept for callers who repeat a request


class WriterNode:
    """`wire.services.WriterService` of one process."""

    def __init__(
        self,
        node_id: NodeId,
        store: MetadataStore,
        storage: Storage,
        mirror: Mirror,
        ids: IdBlocks,
        settings: WriterSettings,
        clock: Clock,
        announce: Announce,
        scratch: Path,
        others: Others,
        default_replicas: int = 1,
    ) -> None:
        """`announce` tells other nodes, without waiting for them. `scratch`: a local directory of this node's own,
        emptied at the start. `others`: the writers that share the shards with this one."""
        self._mirror = mirror
        self._settings = settings
        self._clock = clock
        self._scratch = scratch
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="writer")
        self._leases = ShardLeases(store, node_id, clock, settings.lease_s, self._shard_count, others)
        self.owning = Owning(node_id, self._leases, others, self._shard_count, settings.lease_s)
        self._pressure = Pressure(settings)
        self._publisher = publisher = Publisher(store, mirror, clock, announce)
        self._committer = Committer(
            publisher, storage, mirror, ids, self._leases, self._pressure, clock, settings, self._executor
        )
        self._groups = Groups(self._committer.commit, clock, settings.queue_bytes_max, settings.group_bytes_max)
        self._sealer = Sealer(publisher, storage, mirror, ids, self._leases, clock, self._executor, scratch)
        self._background = BackgroundSealing(self._sealer, mirror, self._leases, self._pressure, clock, settings)
        self._definitions = Definitions(
            store, mirror, ids, publisher, clock, announce, self._groups.settle, default_replicas
        )
        self._forgetting = Forgetting(store)
        self._writing: set[asyncio.Task[WriteReply]] = set()
        self._others: set[asyncio.Task[Any]] = set()  # flushes and definitions under way
        self._stopping = False
        self._answers: OrderedDict[RequestKey, asyncio.Task[WriteReply]] = OrderedDict()

    async def start(self) -> None:
        """The mirror is running already."""
        await asyncio.to_thread(_empty, self._scratch)
        self._mirror.on_fork(self._restore)
        await self._leases.start()
        await self.owning.start()
        await self._background.start()
        await self._forgetting.start()

    async def stop(self) -> None:
        """Finish the commits in flight, refuse what waits, cut off flushes and seals, hand the shards over. A segment
        that is being written goes on in its thread, unheard."""
        self._stopping = True
        await self.owning.stop()
        await self._forgetting.stop()
        await self._background.stop()
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._others, return_exceptions=True)
        await self._groups.stop()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self.owning.leave()
        await self._leases.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def write(self, request: WriteRequest) -> WriteReply:
        """One request, in one commit (I10). A repeated one gets the answer of the first: from memory, also while that
        one is under way; else the metadata service knows it (`committing.py`)."""
        key = (request.request_id, tuple(part.shard for part in request.shards))
        task = self._answers.get(key)
        if task is None:
            if self._stopping:
                raise stopping()
            task = asyncio.create_task(self._write(request), name="write")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
            self._remember(key, task)
        return await asyncio.shield(task)  # the write goes on without its caller, who may ask again

    @property
    def queued_bytes(self) -> int:
        """What waits for a commit."""
        return self._groups.queued_bytes

    @property
    def leaving(self) -> int:
        """Shards that are being handed over."""
        return self._leases.leaving

    def metrics(self) -> Iterator[Sample]:
        yield c.SHARDS_OWNED.of(len(self._leases.held()))
        yield c.SHARDS_LEAVING.of(self._leases.leaving)
        yield c.QUEUE.of(self._groups.queued_bytes)
        yield c.QUEUE_LIMIT.of(self._settings.queue_bytes_max)
        yield from shard_samples(self._leases.held(), self._pressure, self._mirror, self._settings)
        yield from self._publisher.counts.samples()

    async def define(self, request: DefineRequest) -> DefineReply:
        return await self._until_stop(self._definitions.define(request.definition, request.request_id))

    async def flush(self, request: FlushRequest) -> FlushReply:
        return await self._until_stop(self._flush(request))

    async def _until_stop(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work; UNAVAILABLE if this writer stops before it is done."""
        if self._stopping:
            work.close()
            raise stopping()
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise stopping() from None

    def _restore(self, collection_id: CollectionId) -> None:
        self._pressure.fell_back(collection_id)
        task = asyncio.create_task(self._put_back(collection_id), name="putting back lost commits")
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _put_back(self, collection_id: CollectionId) -> None:
        """Until it is done: the next commit, which would see to it too, may never come."""
        while True:
            try:
                return await self._publisher.restore(collection_id)
            except MishardsError as error:
                _log.warning("lost commits not put back yet", error=error.message)
            await asyncio.sleep(PUT_BACK_PAUSE_S)

    async def _flush(self, request: FlushRequest) -> FlushReply:
        collection_id = CollectionId(request.collection_id)
        await self._groups.settle(collection_id)
        await self._mirror.refresh()
        for number in range((await self._known(collection_id)).collection.shards):
            await self._sealer.seal(Shard(collection_id, number))
        manifest = await self._known(collection_id)
        segments = sorted(file.id for file in manifest.live() if file.kind is FileKind.SEGMENT)
        return FlushReply(manifest.version, manifest.ts, tuple(segments))

    async def _write(self, request: WriteRequest) -> WriteReply:
        ends_s = self._clock.monotonic_s() + request.deadline_s
        bytes = request_bytes(request)
        async with AsyncExitStack() as held:
            with self._groups.room(bytes, any(part.rows for part in request.shards)):
                manifest = await self._known(CollectionId(request.collection_id), request)
                write = await self._committer.off_loop(bytes, partial(prepare, request, manifest.collection, ends_s))
                if not write.ops:
                    return WriteReply(manifest.version, manifest.ts)
                if write.has_rows:
                    await self._pressure.admit(manifest, write.ops)
                # refused here, a write does not spoil the group of others
                await held.enter_async_context(self._leases.using(tuple(write.ops)))
                await self._committer.store_ahead(write)
            try:
                return await self._groups.submit(write)
            finally:
                await self._committer.discard_stored(write)

    async def _known(self, collection_id: CollectionId, request: WriteRequest | None = None) -> Manifest:
        """The collection, looked for once more in the metadata service when this process does not know it, or not by
        the name and with the partition that the request has."""
        manifest = self._mirror.get(collection_id)
        if manifest is None or (request is not None and not _fits(request, manifest.collection)):
            await self._mirror.refresh()
            manifest = self._mirror.get(collection_id)
        if manifest is None:
            raise collection_not_found(str(collection_id))
        return manifest

    def _shard_count(self, collection_id: CollectionId) -> int:
        manifest = self._mirror.get(collection_id)
        return 0 if manifest is None else manifest.collection.shards

    def _remember(self, key: RequestKey, task: asyncio.Task[WriteReply]) -> None:
        """Keep the answer for a while, unless it is a failure: then the request may be tried anew."""
        self._answers[key] = task
        task.add_done_callback(lambda done: self._forget_failure(key, done))
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def _forget_failure(self, key: RequestKey, task: asyncio.Task[WriteReply]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._answers.get(key) is task:
            del self._answers[key]


def _fits(request: WriteRequest, collection: Collection) -> bool:
    id = request.partition_id
    has_partition = id == ANY_PARTITION or any(partition.id == id for partition in collection.partitions)
    return has_partition and collection.is_called(request.name)


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
