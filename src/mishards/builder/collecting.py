"""Garbage: what no layout needs any more leaves the storage first, then the metadata service (P12).

Everything here may be done twice at once, or half, by any node (I19): objects are deleted only when no record that
stays names them, names are never used again (P1), and a record goes only after its objects.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from mishards.builder.claims import Claims
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, File, FileKind, Version
from mishards.ports import MetadataStore, Storage

LEASE = "gc"
FILES_MAX = 1_000  # collected at once (P15)
BATCHES_MAX = 100  # of one round: within it the garbage of a busy cluster is gone, or the next round goes on
COMMITS_KEPT = 1_000  # newest of each collection, and all of the last day: whoever asks for a lost commit asks soon
COMMITS_AGE_S = 86_400.0
REMOVED_MAX = 100_000  # segment records that are read to learn what expired ones share with younger ones (P15)

log = structlog.get_logger()


def collectable_paths(expired: Iterable[File], kept: Iterable[File]) -> list[str]:
    """The objects that only expired records name. Records of one segment share parts, so age alone proves nothing."""
    needed = {part.path for file in kept for part in file.parts}
    return sorted({part.path for file in expired for part in file.parts if part.path} - needed)


class Collector:
    """Deletes removed files and dropped collections a grace after they went."""

    def __init__(self, store: MetadataStore, storage: Storage, claims: Claims, grace_s: float) -> None:
        self._store = store
        self._storage = storage
        self._claims = claims
        self._grace_s = grace_s

    async def collect(self) -> int:
        """One round: how many records went. Nothing while another node is at it."""
        try:
            async with self._claims.hold(LEASE):
                await self._store.forget_commits(COMMITS_AGE_S, COMMITS_KEPT)
                collected = await self._collect_collections()
                for _ in range(BATCHES_MAX):
                    count = await self._collect_files()
                    collected += count
                    if count < FILES_MAX:
                        break
                return collected
        except MishardsError as error:
            if error.kind is Kind.LEASE_HELD:
                return 0
            raise

    async def _collect_collections(self) -> int:
        dropped = await self._store.dropped_collections(self._grace_s)
        for collection_id in dropped:
            paths = await self._storage.list(f"{collection_id}/")
            await self._storage.delete(paths)
            await self._store.forget_collection(collection_id)
            log.info("dropped collection collected", collection=collection_id, objects=len(paths))
        return len(dropped)

    async def _collect_files(self) -> int:
        """Collect the oldest files: how many records went."""
        expired = await self._store.removed_files(self._grace_s, FILES_MAX)
        if not expired:
            return 0
        segments = [file for file in expired if file.kind is FileKind.SEGMENT]
        fresh = [file for file in expired if file.kind is not FileKind.SEGMENT]  # they share nothing
        kept = await self._kept(segments) if segments else {}
        expired = [*fresh, *(file for file in segments if file.collection_id in kept)]
        paths = collectable_paths(expired, (file for files in kept.values() for file in files))
        await self._storage.delete(paths)
        await self._store.forget_files([file.id for file in expired])
        log.info("garbage collected", files=len(expired), objects=len(paths))
        return len(expired)

    async def _kept(self, expired: Iterable[File]) -> dict[CollectionId, list[File]]:
        """By collection, the records besides `expired` that may share parts; unknown collections are left out."""
        ids = {file.id for file in expired}
        kept: dict[CollectionId, list[File]] = {}
        # Live records first: one that is removed in between is found among the removed ones then.
        for collection_id in {file.collection_id for file in expired}:
            try:
                kept[collection_id] = list((await self._store.delta(collection_id, Version(0))).added)
            except MishardsError as error:
                if error.kind is not Kind.COLLECTION_NOT_FOUND:  # dropped: its files will go with it
                    raise
        removed = await self._store.removed_files(0.0, REMOVED_MAX, FileKind.SEGMENT)
        if len(removed) == REMOVED_MAX:
            log.warning("too many removed segments wait, segments are not collected", limit=REMOVED_MAX)
            return {}
        for file in removed:
            if file.id not in ids and file.collection_id in kept:
                kept[file.collection_id].append(file)
        return kept
