"""What the plain metadata service tells of garbage (P12), and forgets: one part of `plain_store`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mishards.clock import hybrid
from mishards.errors import Kind, MishardsError
from mishards.metadata.folders import FIRST_LOOK_MS, folder_closed
from mishards.metadata.pins import own_parts
from mishards.model import CollectionId, File, FileId, FileKind, Version
from mishards.testing.sim import plain_tables as rules
from mishards.testing.sim.plain_tables import Folder, Tables


class PlainGarbage:
    """That part of `ports.MetadataStore`."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms`: the database's clock."""
        self.tables = Tables()
        self._now_ms = now_ms

    async def removed_files(
        self,
        older_than_s: float,
        limit: int,
        kind: FileKind | None = None,
        needed: Mapping[CollectionId, Version] = MappingProxyType({}),
        pinned: bool = False,
    ) -> list[File]:
        tables, now_ms, before_ms = self.tables, self._now_ms(), self._in_ms(-older_than_s)

        def wanted(file: File) -> bool:
            if kind not in (None, file.kind) or file.removed > needed.get(file.collection_id, file.removed):
                return False
            dropped = tables.collections[file.collection_id].dropped_ms is not None
            return pinned or not (dropped or rules.is_pinned(tables, file, now_ms))

        old = ((removed_ms, file.id, file) for file, removed_ms in tables.files.values() if file.removed)
        found = [file for removed_ms, _, file in sorted(old) if removed_ms <= before_ms and wanted(file)][:limit]
        return found if pinned else [own_parts(file) for file in found]

    async def dropped_collections(self, older_than_s: float) -> list[CollectionId]:
        now_ms, before_ms = self._now_ms(), self._in_ms(-older_than_s)
        held = {kept.pin.collection_id for kept in self.tables.pins.values() if kept.holds(now_ms)}
        return [
            id
            for id, entry in sorted(self.tables.collections.items())
            if entry.dropped_ms is not None and entry.dropped_ms <= before_ms and id not in held
        ]

    async def forget_files(self, files: Sequence[FileId]) -> None:
        tables = self.tables
        gone = [tables.files[id].file for id in files if id in tables.files and tables.files[id].file.removed]
        for file in gone:
            entry = tables.collections[file.collection_id]
            forgotten = max(entry.forgotten, file.removed)
            tables.collections[file.collection_id] = entry._replace(forgotten=forgotten)
            del tables.files[file.id]
            tables.payloads.pop(file.id, None)
        done = {
            id
            for id in {file.collection_id for file in gone}
            if all(own_parts(file) == file for file in tables.files_of(id))  # it borrows nothing any more
        }
        rules.drop_pins(tables, lambda kept: kept.pin.holder in done)

    async def forget_collection(self, collection_id: CollectionId) -> None:
        tables = self.tables
        entry = tables.collections.pop(collection_id, None)
        if entry is not None and entry.dropped_ms is None:
            tables.collections[collection_id] = entry
            message = f"collection {collection_id} is live: only a dropped one can be forgotten"
            raise MishardsError(Kind.CONFLICT, message)
        for file in list(tables.files_of(collection_id)):
            del tables.files[file.id]
            tables.payloads.pop(file.id, None)
        tables.commits = {key: commit for key, commit in tables.commits.items() if key[0] != collection_id}
        if entry is not None:
            tables.folders[collection_id] = Folder(False, self._now_ms(), self._now_ms() + FIRST_LOOK_MS)
        prefixes = (f"shard/{collection_id}/", f"task/{collection_id}/")
        tables.leases = {name: held for name, held in tables.leases.items() if not name.startswith(prefixes)}
        rules.drop_pins(tables, lambda kept: kept.pin.holder == collection_id)

    async def forget_commits(self, older_than_s: float, keep: int) -> int:
        oldest_ts, collections = hybrid(self._in_ms(-older_than_s)), self.tables.collections
        old = [
            key
            for key, commit in self.tables.commits.items()
            if commit.ts < oldest_ts and commit.version <= collections[key[0]].version - keep
        ]
        for key in old:
            del self.tables.commits[key]
        return len(old)

    async def forget_leases(self, older_than_s: float) -> int:
        before_ms = self._in_ms(-older_than_s)
        old = [name for name, held in self.tables.leases.items() if held.until_ms <= before_ms]
        for name in old:
            del self.tables.leases[name]
        return len(old)

    async def orphans(self, collection_id: CollectionId, paths: Sequence[str]) -> list[str]:
        return rules.orphans(self.tables, collection_id, paths)

    # --------------------------------------------------------------------------------------------------------- folders

    async def open_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        folder = self.tables.folders.get(collection_id)
        if folder is None:
            self.tables.folders[collection_id] = Folder(True, self._now_ms(), self._in_ms(ttl_s))
        elif not folder.filling:
            raise folder_closed(collection_id)

    async def renew_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        folder = self.tables.folders.get(collection_id)
        if folder is None or not folder.filling:
            raise folder_closed(collection_id)
        self.tables.folders[collection_id] = folder._replace(due_ms=self._in_ms(ttl_s))

    async def take_folders(self, quarantine_s: float, limit: int) -> list[CollectionId]:
        now_ms, folders = self._now_ms(), self.tables.folders
        for id, folder in folders.items():
            if folder.filling and folder.due_ms <= now_ms:
                folders[id] = folder._replace(filling=False, due_ms=self._in_ms(quarantine_s))
        due = sorted((folder.due_ms, id) for id, folder in folders.items() if not folder.filling)
        return [id for due_ms, id in due if due_ms <= now_ms][:limit]

    async def rest_folders(self, ids: Sequence[CollectionId]) -> None:
        now_ms, folders = self._now_ms(), self.tables.folders
        for id in folders.keys() & ids:
            age_ms = now_ms - folders[id].since_ms
            folders[id] = folders[id]._replace(due_ms=now_ms + age_ms + FIRST_LOOK_MS)

    def _in_ms(self, seconds: float) -> int:
        return self._now_ms() + int(seconds * 1000)
