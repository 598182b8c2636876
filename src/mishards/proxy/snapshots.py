"""Snapshots as clients ask for them (P13). They change no shard and no file, so no writer is needed: the metadata
service decides, and fresh ids make a repetition harmless."""

from __future__ import annotations

from mishards.clock import Clock
from mishards.errors import invalid
from mishards.metadata import snapshots
from mishards.metadata.ids import IdBlocks
from mishards.model import Collection, CollectionId
from mishards.ports import MetadataStore, Pin
from mishards.proxy.catalog import Catalog

HOLD_S = 3600.0  # of a pin whose client names no time
HOLD_S_MAX = 7 * 86400.0


class Snapshots:
    """Implements `proxy.requests.SnapshotService`."""

    def __init__(self, store: MetadataStore, catalog: Catalog, ids: IdBlocks, clock: Clock) -> None:
        self._store = store
        self._catalog = catalog
        self._ids = ids
        self._clock = clock

    async def create(self, database: str, collection: str, name: str, description: str) -> Pin:
        of = await self._collection(database, collection)
        pin = await snapshots.take(self._store, self._clock, await self._ids.take(1), of, name, description)
        self._catalog.snapshots_changed(of.id)
        return pin

    async def drop(self, database: str, collection: str, name: str) -> None:
        of = await self._collection(database, collection)
        for pin in await snapshots.snapshots_of(self._store, of.id):
            if pin.name == name:
                await self._store.drop_pin(pin.id)
        self._catalog.snapshots_changed(of.id)

    async def list(self, database: str, collection: str = "") -> list[Pin]:
        if collection:
            of = await self._collection(database, collection)
            return await snapshots.snapshots_of(self._store, of.id)
        return [pin for pin in await snapshots.snapshots_of(self._store) if pin.definition.database == database]

    async def describe(self, database: str, collection: str, name: str) -> Pin:
        return await snapshots.require(self._store, await self._collection(database, collection), name)

    async def restore(self, database: str, collection: str, name: str, target: str) -> Collection:
        pin = await self.describe(database, collection, name)
        restored = await snapshots.restore(self._store, self._clock, await self._ids.take(1), pin, target)
        await self._catalog.refresh_if_possible()
        return restored

    async def hold(self, database: str, collection: str, name: str, ttl_s: float) -> CollectionId:
        if not 0 <= ttl_s <= HOLD_S_MAX:
            raise invalid(f"ttl_seconds is {ttl_s:g}, expected 0 to {HOLD_S_MAX:g}")
        of = await self._collection(database, collection)
        pin = await snapshots.require(self._store, of, name)
        id = await self._ids.take(1)
        return (await snapshots.hold(self._store, self._clock, id, of, ttl_s or HOLD_S, pin)).id

    async def release(self, id: int) -> None:
        held = next((pin for pin in await self._store.pins() if pin.id == id and pin.expires), None)
        if held is not None:
            await self._store.drop_pin(held.id)

    async def _collection(self, database: str, name: str) -> Collection:
        """What has the name now, as far as the metadata service can be asked."""
        return (await self._catalog.writable(database, name)).collection
