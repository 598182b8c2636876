"""Compactions as clients ask for them: recorded in the metadata service, carried out by whichever builder sees them.

How far one is follows from what is listed: a segment tells which ones it was made of. So no builder reports, and none
can be asked in vain.
"""

from __future__ import annotations

from mishards.errors import invalid
from mishards.metadata.compactions import Compaction, find, record
from mishards.metadata.ids import IdBlocks
from mishards.metadata.manifest import Manifest
from mishards.model import CollectionId, File
from mishards.ports import MetadataStore
from mishards.proxy.catalog import Catalog
from mishards.proxy.requests import CompactionState

TASKS = ("merge", "rewrite", "materialise")  # of the builders, that a compaction waits for


class Compactions:
    """Implements `proxy.requests.CompactionService`."""

    def __init__(self, store: MetadataStore, catalog: Catalog, ids: IdBlocks) -> None:
        self._store = store
        self._catalog = catalog
        self._ids = ids

    async def start(self, database: str, collection: str) -> int:
        manifest = await self._catalog.writable(database, collection)
        compaction = Compaction(await self._ids.take(1), manifest.collection.id, manifest.version, manifest.ts)
        await record(self._store, compaction)
        return compaction.id

    async def state(self, id: int) -> CompactionState:
        compaction = await find(self._store, id)
        if compaction is None:
            raise invalid(f"compaction {id} is not known: it was asked for more than a day ago, or never")
        await self._catalog.refresh_if_possible()
        merged = self._merged_for(compaction)
        executing = 0 if compaction.done else max(1, await self._executing(compaction.collection_id))
        return CompactionState(compaction, executing, merged)

    async def merged(self, database: str, collection: str) -> list[File]:
        return _merged(await self._catalog.fresh(database, collection))

    def _merged_for(self, compaction: Compaction) -> list[File]:
        """Also those that were merged further, as long as this proxy remembers them."""
        manifest = self._catalog.by_id(compaction.collection_id)
        if manifest is None:  # dropped
            return []
        last = compaction.done or manifest.version
        return [file for file in _merged(manifest) if compaction.version <= file.made < last]

    async def _executing(self, collection_id: CollectionId) -> int:
        claimed = await self._store.leases(f"task/{collection_id}/")
        return sum(lease.name.split("/")[3] in TASKS for lease in claimed)


def _merged(manifest: Manifest) -> list[File]:
    """One record of each segment that was made of others."""
    return list({file.segment_id: file for file in manifest.segments.values() if file.sources}.values())
