"""What a reader holds of one collection, and how far it has applied the chain (P8, P9).

`advance` brings fresh files and tombstones up to the mirror's version; `hold` makes named files answerable. A file
becomes visible to requests only with every tombstone applied so far, so any answer at a version <= `applied` is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import File, FileId, FileKind, Version
from mishards.ports import Storage
from mishards.reader.joints import Joints
from mishards.reader.loading import Loader
from mishards.reader.segments import HeldSegment
from mishards.reader.source import Source
from mishards.reader.tail import Tail
from mishards.segment.fresh import Tombstones, decode_rows, decode_tombstones

T = TypeVar("T")

FETCHES_MAX = 16  # fresh files read from storage at once
SHORT_BYTES = 64 << 10  # decoded in well under a millisecond
MANY_KEYS = 1_000  # looked up in one file in up to half a millisecond
FROZEN_MAX = 4  # sets of sources kept: searches name the newest version, or the one before for a moment
USED_S = 1.0  # how exactly it is known when a segment was last used
STEPS_AT_ONCE = 16  # with fewer keys


class Hosted:
    """One collection's segments, tails and tombstones on this reader."""

    def __init__(self, manifest: Manifest, mirror: Mirror, storage: Storage, loader: Loader) -> None:
        self.manifest = manifest
        self.segments: dict[FileId, HeldSegment] = {}
        self.applied = Version(0)
        self.joints = Joints()
        self._segments_bytes: int | None = None  # not counted
        self._mirror = mirror
        self._storage = storage
        self._loader = loader
        self._tails: dict[int, Tail] = {}
        self._tombstones: dict[int, dict[FileId, tuple[Version, Tombstones]]] = {}
        self._advancing = asyncio.Lock()
        self._holding: dict[FileId, asyncio.Task[None]] = {}
        self.unplaced_since: dict[FileId, float] = {}  # files held that belong to other nodes; monotonic
        self._fetching = asyncio.Semaphore(FETCHES_MAX)
        self._used_s = 0.0  # when segments were last marked as used, by searches over frozen sources
        self._frozen: dict[tuple[int, tuple[int, ...], int], list[Source]] = {}  # by version, files, expiry

    async def stop(self) -> None:
        """End the loads under way."""
        loads = list(self._holding.values())
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    @property
    def memory_bytes(self) -> int:
        """Filter results kept since `recount` are left out."""
        if self._segments_bytes is None:
            self._segments_bytes = sum(segment.bytes for segment in self.segments.values())
        return self._segments_bytes + self.joints.bytes + sum(tail.bytes for tail in self._tails.values())

    def recount(self) -> None:
        """What segments take in memory is counted anew when next asked for; so it is after one came or went."""
        self._segments_bytes = None

    def start_of(self, file: File) -> int:
        """Where the file's rows begin in its source."""
        return 0 if file.kind is FileKind.SEGMENT else self._tail(file.shard).start_of(file.id)

    def files(self) -> list[FileId]:
        """Every data file held: segments and fresh rows."""
        return [*self.segments, *(file_id for tail in self._tails.values() for file_id in tail.files)]

    async def advance(self) -> None:
        """Apply every tombstone the mirror knows."""
        async with self._advancing:
            version = self.manifest.version
            if version <= self.applied:
                return
            new = [
                file
                for file in self.manifest.fresh.values()
                if file.kind is FileKind.TOMBSTONES and file.id not in self._tombstones.get(file.shard, {})
            ]
            if new:
                batches = await _decoded(decode_tombstones, await self._payloads(new))
                for file, batch in zip(new, batches, strict=True):
                    await self._apply(file, batch)
            self.applied = version

    async def hold(self, files: Sequence[File]) -> None:
        """Make the files answerable, loading what is missing. GONE when one exists no more."""
        missing = [file for file in files if not self.holds(file)]
        rows = [file for file in missing if file.kind is FileKind.ROWS]
        segments = [file for file in missing if file.kind is FileKind.SEGMENT]
        if rows:
            await self._hold_rows(rows)
        for outcome in await asyncio.gather(*(self._hold_segment(file) for file in segments), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def holds(self, file: File) -> bool:
        if file.kind is FileKind.SEGMENT:
            return file.id in self.segments
        return file.id in self._tail(file.shard)

    def drop(self, files: Iterable[FileId]) -> None:
        """Forget files of any kind."""
        ids = set(files)
        self._frozen.clear()
        self.joints.forget_plans()
        for file_id in ids:
            self.segments.pop(file_id, None)
        self.recount()
        for tail in self._tails.values():
            tail.drop(ids)
        for batches in self._tombstones.values():
            for file_id in ids & batches.keys():
                del batches[file_id]

    def forget_vanished(self) -> list[FileId]:
        """Drop what the mirror has purged; the ids."""
        known = self.manifest.files
        held = [*self.files(), *(i for batches in self._tombstones.values() for i in batches)]
        gone = [file_id for file_id in held if file_id not in known]
        self.drop(gone)
        return gone

    def sources(self, files: Iterable[File], version: int, now_s: float, expired_ts: int = 0) -> list[Source]:
        """Exactly these files exactly at `version`, without the rows that expired up to that timestamp, frozen. All are
        held and applied."""
        sources = []
        rows: dict[int, list[FileId]] = {}
        for file in files:
            if file.kind is FileKind.SEGMENT:
                segment = self.segments[file.id]
                segment.used_s = now_s
                sources.append(segment.source(version, expired_ts))
            else:
                rows.setdefault(file.shard, []).append(file.id)
        for shard, ids in rows.items():
            sources.extend(self._tail(shard).sources(ids, version, expired_ts))
        return sources

    def sources_now(
        self, files: tuple[int, ...], version: int, now_s: float, expired_ts: int = 0
    ) -> list[Source] | None:
        """What `sources` gives when the version is applied and every file is held; else None.

        Kept for the searches that follow, which name the same files until the next commit: no version that is applied
        ever changes.
        """
        key = (version, files, expired_ts)
        frozen = self._frozen.get(key)
        if frozen is None:
            if self.applied < version:
                return None
            known = self.manifest.files
            named = [file for id in files if (file := known.get(FileId(id))) is not None and self.holds(file)]
            if len(named) < len(files):
                return None
            frozen = self._frozen[key] = self.sources(named, version, now_s, expired_ts)
            while len(self._frozen) > FROZEN_MAX:
                del self._frozen[next(iter(self._frozen))]
        elif now_s - self._used_s > USED_S:
            for id in files:
                if (segment := self.segments.get(FileId(id))) is not None:
                    segment.used_s = now_s
            self._used_s = now_s
        return frozen

    def _tail(self, shard: int) -> Tail:
        tail = self._tails.get(shard)
        if tail is None:
            tail = self._tails[shard] = Tail(self.manifest.collection.schema)
        return tail

    async def _apply(self, file: File, batch: Tombstones) -> None:
        """Others get their turn after each step: no version up to `applied` changes by it, and what is loaded meanwhile
        applies all that is listed. If it is cut off, the batch is applied anew."""
        listed = self._tombstones.setdefault(file.shard, {})
        listed[file.id] = (file.added, batch)
        steps: list[Callable[[], None]] = [
            *(partial(s.apply, batch, file.added) for s in self.segments.values() if s.file.shard == file.shard),
            *self._tail(file.shard).kills(batch, file.added),
        ]
        try:
            for done, step in enumerate(steps, 1):
                step()
                if len(batch) >= MANY_KEYS or done % STEPS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException:
            listed.pop(file.id, None)
            raise

    async def _hold_rows(self, files: Sequence[File]) -> None:
        batches = await _decoded(decode_rows, await self._payloads(files))
        for file, batch in zip(files, batches, strict=True):
            tail = self._tail(file.shard)
            if file.id not in tail:
                tombstones = self._tombstones.get(file.shard, {}).values()
                tail.add(file, batch, dict(tombstones))
                await asyncio.sleep(0)

    async def _hold_segment(self, file: File) -> None:
        """One load at a time; whoever else wants the file waits for the same one, which outlives them."""
        task = self._holding.get(file.id)
        if task is None:
            task = self._holding[file.id] = asyncio.create_task(self._load_segment(file))
            task.add_done_callback(lambda done: self._loaded(file.id, done))
        await asyncio.shield(task)

    def _loaded(self, file_id: FileId, done: asyncio.Task[None]) -> None:
        del self._holding[file_id]
        if not done.cancelled():
            done.exception()  # seen, should nobody be waiting any more

    async def _load_segment(self, file: File) -> None:
        segment = await self._loader.load(file, self.manifest.collection)
        # While the kills so far are applied on the pool, more may arrive: those are applied here, on the loop.
        done = self._tombstones_of(file.shard)
        await asyncio.to_thread(_apply_all, segment, done.values())
        for file_id, (version, batch) in self._tombstones_of(file.shard).items():
            if file_id not in done:
                segment.apply(batch, version)
        self.segments[file.id] = segment
        self.recount()

    def _tombstones_of(self, shard: int) -> dict[FileId, tuple[Version, Tombstones]]:
        return dict(self._tombstones.get(shard, {}))

    async def _payloads(self, files: Sequence[File]) -> list[bytes | memoryview]:
        """The contents of fresh files, in order."""
        inline = await self._mirror.payloads([file for file in files if file.inline])
        written_here = self._mirror.stored(file.id for file in files)

        async def one(file: File) -> bytes | memoryview:
            if file.inline:
                return inline[file.id]
            if file.id in written_here:
                return written_here[file.id]
            async with self._fetching:
                try:
                    return await self._storage.get(file.parts[0].path)
                except MishardsError as error:
                    if error.kind is Kind.GONE:
                        self._mirror.vanished(file)
                    raise

        return await asyncio.gather(*(one(file) for file in files))


async def _decoded(decode: Callable[[bytes | memoryview], T], payloads: Sequence[bytes | memoryview]) -> list[T]:
    """The contents decoded, which verifies their checksums: in a thread unless it is short."""
    if sum(len(payload) for payload in payloads) <= SHORT_BYTES:
        return [decode(payload) for payload in payloads]
    return await asyncio.to_thread(lambda: [decode(payload) for payload in payloads])


def _apply_all(segment: HeldSegment, batches: Iterable[tuple[Version, Tombstones]]) -> None:
    for version, batch in batches:
        segment.apply(batch, version)
