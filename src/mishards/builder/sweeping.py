"""Orphans: uploads that no commit has listed and none can list any more, left by attempts that crashed (P12).

A shard's folder is listed first; what the mirror knows is needed. Of the rest the metadata service tells, in one
snapshot, which no record names and whose token is fenced: once true, true for ever. They go after a quarantine by this
process' own clock, in which a metadata service that was set back may be put right (they may be named by what it lost).
Folders of collections that the metadata service knows nothing of are left alone: they belong to another database. Of
those that were its own once it keeps a list (`metadata/folders.py`, `Collector`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import structlog

from mishards.clock import Clock
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId
from mishards.ports import MetadataStore, Storage

SHARDS_MAX = 20  # listed in one round (P15)
ASKED_MAX = 10_000  # paths asked about at once, and deleted at once (P15)
SUSPECTS_MAX = 100_000  # in quarantine at once; what is found beyond waits for a later sweep (P15)
SWEEP_S_MAX = 3600.0  # from the start of one sweep to that of the next, or a quarter of a shorter quarantine
PATH_PARTS = 4  # collection, shard, token, name (P1); whatever else lies there is not ours to judge

Folder = tuple[CollectionId, int]  # of a shard

log = structlog.get_logger()


class Sweeper:
    """Goes over all shards, some in each round, and then rests."""

    def __init__(
        self, store: MetadataStore, storage: Storage, mirror: Mirror, clock: Clock, quarantine_s: float
    ) -> None:
        self._store = store
        self._storage = storage
        self._mirror = mirror
        self._clock = clock
        self._quarantine_s = quarantine_s
        self._folders: deque[Folder] = deque()  # of this sweep, still to be looked at
        self._began_s = float("-inf")  # monotonic
        self._found_s: dict[Folder, dict[str, float]] = {}  # orphans, and since when they are known to be some

    @property
    def quarantined(self) -> int:
        """Orphans that wait."""
        return sum(len(paths) for paths in self._found_s.values())

    async def sweep(self) -> int:
        """One round: how many objects went."""
        now_s = self._clock.monotonic_s()
        if not self._folders and now_s - self._began_s >= min(SWEEP_S_MAX, self._quarantine_s / 4):
            self._began_s = now_s
            self._folders.extend(_folders(self._mirror.manifests()))
            self._found_s = {folder: self._found_s[folder] for folder in self._folders if folder in self._found_s}
        swept = 0
        for _ in range(min(SHARDS_MAX, len(self._folders))):
            swept += await self._sweep_shard(self._folders.popleft())
        return swept

    async def _sweep_shard(self, folder: Folder) -> int:
        collection_id, shard = folder
        listed = [path for path in await self._storage.list(f"{collection_id}/{shard}/") if _is_object(path)]
        manifest = self._mirror.get(collection_id)  # after the listing: what was committed before is known by now
        if manifest is None:
            return 0
        needed = {part.path for file in manifest.files.values() for part in file.parts}
        suspects = [path for path in listed if path not in needed]
        orphans: list[str] = []
        for batch in _batches(suspects):
            orphans += await self._store.orphans(collection_id, batch)
        now_s = self._clock.monotonic_s()
        before = self._found_s.pop(folder, {})
        found_s = {path: before.get(path, now_s) for path in orphans}
        due = [path for path, since_s in found_s.items() if now_s - since_s >= self._quarantine_s]
        for batch in _batches(due):
            await self._storage.delete(batch)
        if due:
            log.info("orphans collected", collection=collection_id, shard=shard, objects=len(due))
        self._keep(folder, {path: since_s for path, since_s in found_s.items() if since_s + self._quarantine_s > now_s})
        return len(due)

    def _keep(self, folder: Folder, found_s: dict[str, float]) -> None:
        room = SUSPECTS_MAX - self.quarantined
        if len(found_s) > room:
            log.warning("too many orphans at once, some wait for a later sweep", found=len(found_s), limit=SUSPECTS_MAX)
            found_s = dict(list(found_s.items())[:room])
        if found_s:
            self._found_s[folder] = found_s


def _folders(manifests: Iterable[Manifest]) -> list[Folder]:
    return [(manifest.collection.id, shard) for manifest in manifests for shard in range(manifest.collection.shards)]


def _is_object(path: str) -> bool:
    return path.count("/") == PATH_PARTS - 1


def _batches(paths: Sequence[str]) -> list[Sequence[str]]:
    return [paths[start : start + ASKED_MAX] for start in range(0, len(paths), ASKED_MAX)]
