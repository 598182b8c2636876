"""One attempt at a task: what it reads, what it uploads, and the one layout commit that makes it count (P5).

    claim -> snapshot (refreshed) -> fetch and verify -> compute or build -> upload -> commit -> apply and announce

Until the commit nothing of it is visible, so an attempt may end anywhere. Its uploads lie under its own nonce (P1); it
deletes them again when it knows that they were not committed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from mishards.builder.claims import Claim
from mishards.builder.policy import Task
from mishards.builder.pool import Pool
from mishards.builder.workers import Workers
from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.metadata.deltas import delta_of
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, Commit, File, FileId, FileKind, Part, Version
from mishards.ports import CommitRequest, IndexKind, MetadataStore, Storage
from mishards.segment.footer import verify
from mishards.segment.fresh import Tombstones, decode_tombstones
from mishards.wire.messages import Notice

TRANSFERS_MAX = 8  # of one attempt at once (P15)
OUTCOME_TRIES = 5  # to learn what became of a commit whose answer was lost
OUTCOME_PAUSE_S = 1.0
DISCARD_S_MAX = 1.0  # a stop waits for it; what it does not reach stays as garbage
REFUSALS = frozenset({Kind.FENCED, Kind.CONFLICT, Kind.COLLECTION_NOT_FOUND})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt of a node works with."""

    store: MetadataStore
    storage: Storage
    mirror: Mirror
    ids: IdBlocks
    clock: Clock
    pool: Pool
    workers: Workers
    work_dir: Path
    index_kind: Callable[[str], IndexKind]
    announce: Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard at one version: its live files, in the order of their ids."""

    collection: Collection
    version: Version
    files: tuple[File, ...]

    def inputs(self, ids: Iterable[FileId]) -> list[File]:
        """The files of these ids; CONFLICT if one is not live any more."""
        wanted = set(ids)
        found = [file for file in self.files if file.id in wanted]
        if len(found) < len(wanted):
            raise MishardsError(Kind.CONFLICT, f"{len(wanted) - len(found)} of {len(wanted)} inputs are not live")
        return found

    def tombstones_after(self, horizon: int) -> list[File]:
        return [file for file in self.files if file.kind is FileKind.TOMBSTONES and file.added > horizon]


@asynccontextmanager
async def begin(tools: Tools, task: Task, claim: Claim) -> AsyncIterator[Attempt]:
    """An attempt with an empty folder of its own, which is gone afterwards, as are uploads that do not count."""
    folder = tools.work_dir / claim.nonce
    await asyncio.to_thread(folder.mkdir, parents=True)
    attempt = Attempt(tools, task, claim, folder)
    try:
        yield attempt
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await attempt.discard()


class Attempt:
    """The I/O of one attempt."""

    def __init__(self, tools: Tools, task: Task, claim: Claim, folder: Path) -> None:
        self.folder = folder
        self._tools = tools
        self._task = task
        self._claim = claim
        self._transfers = asyncio.Semaphore(TRANSFERS_MAX)
        self._uploads: list[str] = []  # that no commit can have listed
        self._seen: list[tuple[Version, str]] = []  # versions that snapshots were taken at, with their commits' uuids

    async def snapshot(self) -> Snapshot:
        """The task's shard, at least as new as the claim."""
        await self._tools.mirror.refresh()
        manifest = self._tools.mirror.get(self._task.collection_id)
        if manifest is None:
            raise collection_not_found(str(self._task.collection_id))
        if manifest.version > 0:
            self._seen.append((manifest.version, manifest.head))
        live = sorted((file for file in manifest.live() if file.shard == self._task.shard), key=lambda file: file.id)
        return Snapshot(manifest.collection, manifest.version, tuple(live))

    async def definition(self) -> Collection:
        """The collection as it is defined now."""
        found = await self._tools.store.collections([self._task.collection_id])
        if not found:
            raise collection_not_found(str(self._task.collection_id))
        return found[0][0]

    def unix_ms(self) -> int:
        return self._tools.clock.unix_ms()

    async def compute(self, function: Callable[..., T], *args: Any) -> T:
        """The function's result, computed beside the loop."""
        return await self._tools.pool.run(function, *args)

    async def build(self, function: Callable[..., T], *args: Any) -> T:
        """The result of one of the `jobs`, computed in another process."""
        return await self._tools.workers.run(function, *args)

    async def take_ids(self, count: int) -> int:
        """The first of `count` fresh ids."""
        return await self._tools.ids.take(count)

    def index_kind(self, name: str) -> IndexKind:
        return self._tools.index_kind(name)

    # -------------------------------------------------------------------------------------------------------- reading

    async def fetch(self, part: Part) -> Path:
        """A verified local copy, not to be written to: it may be a link to the object itself."""
        path = self.folder / self._tools.clock.token()
        async with self._transfers:
            await self._tools.storage.fetch(part.path, path)
        await self.compute(verify, path)
        return path

    async def tombstones(self, files: Sequence[File]) -> list[tuple[int, Tombstones]]:
        """What the TOMBSTONES files hold, each with the version of its commit."""
        payloads = await all_of(self._payload(file) for file in files)
        decoded = await self.compute(lambda: [decode_tombstones(payload) for payload in payloads])
        return [(file.added, stones) for file, stones in zip(files, decoded, strict=True)]

    async def _payload(self, file: File) -> bytes:
        async with self._transfers:
            if file.inline:
                return await self._tools.mirror.payload(file)
            return await self._tools.storage.get(file.parts[0].path)

    # -------------------------------------------------------------------------------------------------------- writing

    async def upload(self, source: Path, part: Part) -> Part:
        """The part, with the path at which the local file's content now lies."""
        folder = f"{self._task.collection_id}/{self._task.shard}/{self._claim.nonce}"
        path = f"{folder}/{self._tools.clock.token()}.{part.kind}"
        self._uploads.append(path)
        async with self._transfers:
            await self._tools.storage.put_file(path, source)
        return replace(part, path=path)

    async def commit(self, removed: Sequence[File], added: Sequence[File]) -> Commit:
        """The layout commit, known to this node's mirror and announced. FENCED, CONFLICT, COLLECTION_NOT_FOUND: it did
        not happen. METADATA_UNAVAILABLE: nobody knows, and its uploads stay."""
        request = CommitRequest(
            collection_id=self._task.collection_id,
            uuid=self._tools.clock.token(),
            kind="layout",
            now_ms=self._tools.clock.unix_ms(),
            leases=((self._claim.name, self._claim.nonce),),
            added=tuple(added),
            removed=tuple(file.id for file in removed),
            made_of=tuple(self._seen),
        )
        listed = {part.path for file in added for part in file.parts}
        uploads, self._uploads = self._uploads, [path for path in self._uploads if path not in listed]
        try:
            commit = await self._commit(request)
        except MishardsError as error:
            if error.kind in REFUSALS:
                self._uploads = uploads
            raise
        delta = delta_of(request, commit)
        if not self._tools.mirror.apply(delta):
            self._tools.mirror.hint()
        self._tools.announce(Notice(delta))
        return commit

    async def _commit(self, request: CommitRequest) -> Commit:
        try:
            return await self._tools.store.commit(request)
        except MishardsError as error:
            if error.kind is not Kind.METADATA_UNAVAILABLE:
                raise
            lost = error
        for number in range(OUTCOME_TRIES):
            with suppress(MishardsError):
                found = await self._tools.store.find_commit(request.collection_id, request.uuid)
                if found is not None:
                    return found
                break
            await asyncio.sleep(OUTCOME_PAUSE_S * 2**number)
        raise lost

    async def discard(self) -> None:
        """Delete the uploads that no commit can have listed, as far as storage allows."""
        if self._uploads:
            with suppress(MishardsError, TimeoutError):
                async with asyncio.timeout(DISCARD_S_MAX):
                    await self._tools.storage.delete(self._uploads)


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
