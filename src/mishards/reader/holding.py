"""Following placement: which collections this reader hosts, what it loads ahead of time, what it lets go (P11, P16).

One task runs `_follow`: whenever definitions, files or members change it advances every hosted collection, loads what
placement gives this node and drops what it has not been given for a while. Requests may load more on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence

import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, CollectionId, File, FileId, FileKind, NodeId
from mishards.ports import Storage
from mishards.reader.hosted import Hosted
from mishards.reader.loading import Loader
from mishards.reader.segments import unit_bytes
from mishards.wire.membership import Membership
from mishards.wire.messages import ReadyState
from mishards.wire.placement import Placement, file_key

log = structlog.get_logger(__name__)

KEEP_UNPLACED_S = 60.0  # a file placed elsewhere is kept that long: the new owner may not be ready yet
KEEP_FROZEN_S = 60.0  # what a snapshot needs is kept that long after the last request for it
LOOK_S = KEEP_UNPLACED_S / 4  # between looks at everything
RETRY_S = 1.0


class Holdings:
    """All collections on this reader. `epoch` grows whenever the answer of `ready` changes."""

    def __init__(
        self,
        node_id: str,
        storage: Storage,
        mirror: Mirror,
        membership: Membership,
        placement: Placement,
        loader: Loader,
        memory_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._node_id = NodeId(node_id)
        self._storage = storage
        self._mirror = mirror
        self._membership = membership
        self._placement = placement
        self._loader = loader
        self._memory_bytes_max = memory_bytes_max
        self._clock = clock
        self.missing = 0  # loads that failed since storage has not what is live, since the start
        self._hosted: dict[CollectionId, Hosted] = {}
        self._epoch = 1
        self._news: set[CollectionId] = set()  # to be followed
        self._asked_s: dict[CollectionId, float] = {}  # of frozen views: the last request; monotonic
        self._followed: dict[CollectionId, object] = {}  # the state whose segments are all held, or left out
        self._members = -1  # the epoch of the last look at everything
        self._looked_s = -math.inf
        self._changed = asyncio.Event()  # there are news, or members changed
        self._moved = asyncio.Event()  # `epoch` grew; replaced each time
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._mirror.on_change(self.note)
        self._membership.on_change(self._changed.set)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for hosted in self._hosted.values():
            await hosted.stop()

    @property
    def bytes(self) -> int:
        return sum(hosted.memory_bytes for hosted in self._hosted.values())

    def segments(self) -> dict[int, tuple[FileId, ...]]:
        """The segments that are answered without loading. Fresh rows load in a moment and are not worth telling."""
        return {collection_id: tuple(hosted.segments) for collection_id, hosted in self._hosted.items()}

    def applied(self) -> dict[int, int]:
        return {collection_id: hosted.applied for collection_id, hosted in self._hosted.items()}

    def hosted(self, collection_id: CollectionId) -> Hosted:
        """The collection's state here, empty when first asked for. NOT_LOADED when it is not known or not loaded."""
        manifest = self._mirror.get(collection_id)
        if manifest is None or not manifest.collection.loaded:
            raise MishardsError(Kind.NOT_LOADED, f"collection {collection_id} is not loaded here")
        if manifest.frozen:
            self._asked_s[collection_id] = self._clock.monotonic_s()
        hosted = self._hosted.get(collection_id)
        if hosted is None or hosted.manifest is not manifest or hosted.applied > manifest.version:  # a restored past
            hosted = Hosted(manifest, self._mirror, self._storage, self._loader)
            self._hosted[collection_id] = hosted
        return hosted

    async def load(self, hosted: Hosted, files: Sequence[File]) -> None:
        """Load on demand, making room first."""
        self._make_room([file for file in files if not hosted.holds(file)], hosted.manifest.collection)
        await self._hold(hosted, files)
        if any(file.kind is FileKind.SEGMENT for file in files):
            self._tell()

    async def ready(self, since: int, wait_s: float, in_flight: int) -> ReadyState:
        """The state as soon as it is newer than `since`, at the latest after `wait_s`."""
        if self._epoch <= since:
            moved = self._moved
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await moved.wait()
        return ReadyState(
            epoch=self._epoch,
            files={key: tuple(ids) for key, ids in self.segments().items()},
            applied=self.applied(),
            memory_bytes=self.bytes,
            in_flight=in_flight,
        )

    def _tell(self) -> None:
        self._epoch += 1
        self._moved.set()
        self._moved = asyncio.Event()

    # ------------------------------------------------------------------------------------------------- follow

    def note(self, collection_id: CollectionId) -> None:
        """The collection has changed: follow it."""
        self._news.add(collection_id)
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            try:
                again = await self._step()
            except Exception as error:  # this loop must outlive any one failure
                log.exception("following placement failed", error=str(error))
                again = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if again else LOOK_S):
                    await self._changed.wait()

    async def _step(self) -> bool:
        """One round; True when something failed and is worth another try soon. It is over the collections that
        changed, and over all of them when members changed and every while."""
        now_s = self._clock.monotonic_s()
        members = self._membership.epoch
        if self._members != members or now_s - self._looked_s >= LOOK_S:
            self._members, self._looked_s = members, now_s
            self._news.update(self._hosted, (manifest.collection.id for manifest in self._mirror.manifests()))
            self._followed.clear()
            for hosted in self._hosted.values():
                hosted.recount()
        failed = set()
        for collection_id in sorted(self._news):
            self._news.discard(collection_id)  # before the look: a change during it counts again
            manifest = self._mirror.get(collection_id)
            if manifest is None or not manifest.collection.loaded:
                self._forget(collection_id)
                continue
            if manifest.frozen:
                if now_s - self._asked_s.get(collection_id, -math.inf) > KEEP_FROZEN_S:
                    self._forget(collection_id)
                continue
            try:
                await self._follow_collection(manifest)
            except MishardsError as error:
                failed.add(collection_id)
                self._followed.pop(collection_id, None)
                log.info("cannot hold a collection yet", collection=manifest.collection.name, error=error.message)
        self._news |= failed
        return bool(failed)

    def _forget(self, collection_id: CollectionId) -> None:
        self._followed.pop(collection_id, None)
        self._asked_s.pop(collection_id, None)
        if self._hosted.pop(collection_id, None) is not None:
            self._placement.forget(collection_id)
            self._tell()

    async def _follow_collection(self, manifest: Manifest) -> None:
        """What a commit of rows concerns are the fresh rows; segments are looked at when their layout is new."""
        collection = manifest.collection
        hosted = self.hosted(collection.id)
        await hosted.advance()
        state = (manifest, manifest.layout, manifest.oldest, collection.updated_ts)
        placed = self._placed(manifest)
        wanted = self._wanted(manifest, manifest.fresh, placed)
        if self._followed.get(collection.id) != state:
            wanted += self._wanted(manifest, manifest.segments, placed)
            vanished = hosted.forget_vanished()
            dropped = self._drop_unplaced(hosted, {file.id for file in wanted})
            if vanished or dropped:
                self._tell()
        failures = []
        for file in self._fitting([file for file in wanted if not hosted.holds(file)], collection):
            try:
                await self._hold(hosted, [file])
            except MishardsError as error:  # the others are held all the same
                failures.append(error)
                continue
            if file.kind is FileKind.SEGMENT:
                self._tell()
        if failures:
            raise failures[0]
        self._followed[collection.id] = state

    async def _hold(self, hosted: Hosted, files: Sequence[File]) -> None:
        try:
            await hosted.hold(files)
        except MishardsError as error:
            known = (hosted.manifest.files.get(file.id) for file in files)
            self.missing += error.kind is Kind.GONE and all(file is not None and not file.removed for file in known)
            raise
        for file in files:
            segment = hosted.segments.get(file.id)
            if segment is not None:
                segment.used_s = self._clock.monotonic_s()

    def _placed(self, manifest: Manifest) -> Mapping[str, tuple[NodeId, ...]]:
        return self._placement.of(
            manifest.collection,
            lambda: [file for file in manifest.segments.values() if not file.removed],
            self._membership.of("reader"),
            (self._membership.epoch, manifest.layout),
        )

    def _wanted(
        self, manifest: Manifest, files: Mapping[FileId, File], placed: Mapping[str, tuple[NodeId, ...]]
    ) -> list[File]:
        """The live data files among these that placement gives this node."""
        released = set(manifest.collection.released_partitions)
        return [
            file
            for file in files.values()
            if not file.removed
            and file.kind is not FileKind.TOMBSTONES
            and file.partition_id not in released
            and self._node_id in placed.get(file_key(file), ())
        ]

    def _drop_unplaced(self, hosted: Hosted, wanted: set[FileId]) -> bool:
        """Let go of live files that belong to others for a while; removed ones stay until the mirror forgets them."""
        now_s = self._clock.monotonic_s()
        files = [hosted.manifest.files.get(file_id) for file_id in hosted.files()]
        unplaced = [file.id for file in files if file is not None and not file.removed and file.id not in wanted]
        since = {file_id: hosted.unplaced_since.get(file_id, now_s) for file_id in unplaced}
        expired = [file_id for file_id, seen_s in since.items() if now_s - seen_s > KEEP_UNPLACED_S]
        hosted.unplaced_since = {file_id: seen_s for file_id, seen_s in since.items() if file_id not in expired}
        hosted.drop(expired)
        return bool(expired)

    def _fitting(self, files: Sequence[File], collection: Collection) -> list[File]:
        """What may be loaded ahead of time without pushing anything out."""
        room = self._memory_bytes_max - self.bytes
        fitting = []
        for file in files:
            room -= _resident(file, collection)
            if room >= 0:
                fitting.append(file)
        if len(fitting) < len(files):
            log.warning("memory is full, files are loaded on demand", left_out=len(files) - len(fitting))
        return fitting

    def _make_room(self, files: Sequence[File], collection: Collection) -> None:
        """Drop the least recently used segments until the files fit (P15)."""
        over = self.bytes + sum(_resident(file, collection) for file in files) - self._memory_bytes_max
        if over <= 0:
            return
        needed = {file.id for file in files}
        candidates = [
            (segment.used_s, segment.bytes, hosted, segment.file.id)
            for hosted in self._hosted.values()
            for segment in hosted.segments.values()
            if segment.file.id not in needed and segment.bytes > 0
        ]
        for _, size, hosted, file_id in sorted(candidates, key=lambda entry: entry[0]):
            if over <= 0:
                return
            hosted.drop([file_id])
            over -= size


def _resident(file: File, collection: Collection) -> int:
    """What loading a file adds to memory; mapped columns do not count."""
    if file.kind is FileKind.SEGMENT:
        return sum(part.bytes for part in file.parts if part.kind == "index") + unit_bytes(file, collection)
    return file.bytes
