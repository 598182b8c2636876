"""Garbage: what no layout needs any more leaves the storage first, then the metadata service (P12).

A removed file is needed by nobody once each live node's oldest layout in use is at or past its removal; a grace stands
beside that for nodes that nobody sees. Too early would make a search plan anew, never answer wrongly (P8).

Everything here may be done twice at once, or half, by any node (I19): objects are deleted only when no record that
stays names them, names are never used again (P1), and a record goes only after its objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from mishards.builder.claims import Claims
from mishards.builder.floors import Floors
from mishards.builder.sweeping import Sweeper
from mishards.errors import Kind, MishardsError
from mishards.metadata.echo import folder_of
from mishards.model import CollectionId, File, FileKind, Version
from mishards.ports import MetadataStore, Storage

LEASE = "gc"
FILES_MAX = 1_000  # collected at once (P15)
BATCHES_MAX = 100  # of one round: within it the garbage of a busy cluster is gone, or the next round goes on
COMMITS_KEPT = 1_000  # newest of each collection, and all of the last day: whoever asks for a lost commit asks soon
COMMITS_AGE_S = 86_400.0
REMOVED_MAX = 100_000  # segment records that are read to learn what expired ones share with younger ones (P15)
FOLDERS_MAX = 20  # of no collection, emptied in one round (P15)
HELD_BACK_MAX = 200  # collections whose files a round may pass over because somebody uses them (P15)
LEASES_AGE_S = 86_400.0  # after its end: whoever held it was gone long before

log = structlog.get_logger()


def collectable_paths(expired: Iterable[File], kept: Iterable[File]) -> list[str]:
    """The objects that only expired records name. Records of one segment share parts, so age alone proves nothing."""
    needed = {part.path for file in kept for part in file.parts}
    return sorted({part.path for file in expired for part in file.parts if part.path} - needed)


class Collector:
    """Deletes removed files and dropped collections a grace after they went, orphans after their quarantine, and what
    lies in folders of no collection."""

    def __init__(
        self,
        store: MetadataStore,
        storage: Storage,
        claims: Claims,
        floors: Floors,
        sweeper: Sweeper,
        grace_s: float,
        quarantine_s: float,
    ) -> None:
        self._store = store
        self._storage = storage
        self._claims = claims
        self._floors = floors
        self._grace_s = grace_s
        self._quarantine_s = quarantine_s
        self._steps = {
            "dropped collections": self._collect_collections,
            "objects of no collection": self._collect_folders,
            "removed files": self._collect_removed,
            "orphans": sweeper.sweep,
        }
        self.collected = dict.fromkeys(self._steps, 0)  # since the start

    async def collect(self) -> int:
        """One round: how many records and orphans went. Nothing while another node is at it. What fails holds up
        nothing else; the next round tries it again."""
        collected = 0
        try:
            async with self._claims.hold(LEASE):
                await self._store.forget_commits(COMMITS_AGE_S, COMMITS_KEPT)
                await self._store.forget_leases(LEASES_AGE_S)
                for what, collect in self._steps.items():
                    try:
                        self.collected[what] += (count := await collect())
                        collected += count
                    except MishardsError as error:
                        log.warning("garbage not collected", what=what, error=error.message)
        except MishardsError as error:
            if error.kind is not Kind.LEASE_HELD:
                raise
        return collected

    async def _collect_collections(self) -> int:
        dropped = await self._store.dropped_collections(self._grace_s)
        for collection_id in dropped:
            paths = await self._storage.list(f"{collection_id}/")
            await self._storage.delete(paths)
            await self._store.forget_collection(collection_id)
            log.info("dropped collection collected", collection=collection_id, objects=len(paths))
        return len(dropped)

    async def _collect_folders(self) -> int:
        """Empty folders that belong to no collection: how many objects went."""
        taken = await self._store.take_folders(self._quarantine_s, FOLDERS_MAX)
        collected = 0
        for collection_id in taken:
            paths = [
                *await self._storage.list(f"{collection_id}/"),
                *await self._storage.list(folder_of(collection_id)),
            ]
            if paths:
                await self._storage.delete(paths)
                log.info("objects of no collection collected", collection=collection_id, objects=len(paths))
            collected += len(paths)
        if taken:
            await self._store.rest_folders(taken)
        return collected

    async def _collect_removed(self) -> int:
        """Collect removed files, oldest first and passing over those in use: how many records went."""
        collected = 0
        floors: Mapping[CollectionId, Version] | None = None
        held_back: dict[CollectionId, Version] = {}
        for _ in range(BATCHES_MAX):
            expired = await self._store.removed_files(self._grace_s, FILES_MAX, needed=held_back)
            if not expired:
                break
            if floors is None:
                floors = await self._floors()
            used = {file.id: file for file in expired if file.removed > floors.get(file.collection_id, file.removed)}
            held_back |= {file.collection_id: floors[file.collection_id] for file in used.values()}
            collected += await self._collect_files([file for file in expired if file.id not in used])
            if len(expired) < FILES_MAX or len(held_back) > HELD_BACK_MAX:
                break
        return collected

    async def _collect_files(self, expired: Sequence[File]) -> int:
        """How many records of these went."""
        segments = [file for file in expired if file.kind is FileKind.SEGMENT]
        fresh = [file for file in expired if file.kind is not FileKind.SEGMENT]  # they share nothing
        kept = await self._kept(segments) if segments else {}
        going = [*fresh, *(file for file in segments if file.collection_id in kept)]
        if not going:
            return 0
        paths = collectable_paths(going, (file for files in kept.values() for file in files))
        await self._storage.delete(paths)
        await self._store.forget_files([file.id for file in going])
        log.info("garbage collected", files=len(going), objects=len(paths))
        return len(going)

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
        removed = await self._store.removed_files(0.0, REMOVED_MAX, FileKind.SEGMENT, pinned=True)
        if len(removed) == REMOVED_MAX:
            log.warning("too many removed segments wait, segments are not collected", limit=REMOVED_MAX)
            return {}
        for file in removed:
            if file.id not in ids and file.collection_id in kept:
                kept[file.collection_id].append(file)
        return kept
