"""Names to collections, as fresh as a request needs (the cached metadata that 2020's proxies lacked).

A name that is unknown, or a collection that does not look loaded, may only be news not yet heard: the metadata service
is asked once before a request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from mishards.errors import Kind, MishardsError, collection_not_found, invalid
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.metadata.snapshots import MARK
from mishards.model import DEFAULT_DATABASE, Collection, CollectionId, PartitionId


class Catalog:
    """Look-ups in the mirror."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    async def fresh(self, database: str, name: str) -> Manifest:
        """As the metadata service has it now; as last seen while it is down. COLLECTION_NOT_FOUND. The name of a
        snapshot, `collection@snapshot`, is answered here and in `loaded`."""
        if MARK in name:
            return await self._snapshot(database, name, fresh=True)
        check_database(database)
        try:
            await self._mirror.refresh()
        except MishardsError as error:  # of a name that is not known, an outage does not say that it does not exist
            if error.kind is not Kind.METADATA_UNAVAILABLE or self._mirror.find(database, name) is None:
                raise
        return self._known(database, name)

    async def writable(self, database: str, name: str) -> Manifest:
        """Like `fresh`; snapshots, which are only read, are refused."""
        manifest = await self.fresh(database, name)
        if manifest.frozen:
            raise read_only(name)
        return manifest

    async def known(self, database: str, name: str) -> Manifest:
        """From the cache; a miss asks the metadata service. COLLECTION_NOT_FOUND. Snapshots, which are only read, are
        refused."""
        check_database(database)
        if MARK in name:
            raise read_only(name)
        manifest = self._mirror.find(database, name)
        return await self.fresh(database, name) if manifest is None else manifest

    async def loaded(self, database: str, name: str, partitions: Sequence[str] = ()) -> Manifest:
        """Like `known`, and loaded, the partitions too. COLLECTION_NOT_LOADED, PARTITION_NOT_FOUND / _NOT_LOADED;
        METADATA_UNAVAILABLE when that may have changed."""
        if MARK in name:
            manifest = await self._snapshot(database, name)
            readable_partitions(manifest.collection, partitions)
            return manifest
        manifest = await self.known(database, name)
        try:
            check_loaded(manifest.collection, name, partitions)
        except MishardsError:
            await self._mirror.refresh()
            manifest = self._known(database, name)
            check_loaded(manifest.collection, name, partitions)
        return manifest

    def loaded_now(self, database: str, name: str, partitions: Sequence[str] = ()) -> Manifest | None:
        """What `loaded` gives, when it can give it without asking anyone."""
        manifest = self._mirror.find(database, name)
        if manifest is None or not manifest.collection.loaded:
            return None
        if partitions:
            try:
                readable_partitions(manifest.collection, partitions)
            except MishardsError:
                return None
        return manifest

    async def recheck(self, manifest: Manifest, name: str) -> Manifest:
        """After a reader refused: the collection as the metadata service has it. COLLECTION_NOT_FOUND / _NOT_LOADED."""
        if manifest.frozen:
            return await self._snapshot(manifest.collection.database, name, fresh=True)
        await self.refresh_if_possible()
        current = self._mirror.get(manifest.collection.id)
        if current is None:
            raise collection_not_found(name, manifest.collection.database)
        check_loaded(current.collection, name, ())
        return current

    def snapshots_changed(self, collection_id: CollectionId) -> None:
        """Whoever asks this proxy next for a snapshot of the collection sees it."""
        self._mirror.pinned.look_again(collection_id)

    def by_id(self, collection_id: CollectionId) -> Manifest | None:
        return self._mirror.get(collection_id)

    async def refresh_if_possible(self) -> None:
        try:
            await self._mirror.refresh()
        except MishardsError as error:
            if error.kind is not Kind.METADATA_UNAVAILABLE:
                raise

    def all(self, database: str) -> list[Manifest]:
        check_database(database)
        return [m for m in self._mirror.manifests() if m.collection.database == database]

    async def _snapshot(self, database: str, name: str, fresh: bool = False) -> Manifest:
        """The view of `collection@snapshot`. COLLECTION_NOT_FOUND."""
        of, _, snapshot = name.partition(MARK)
        collection = (await self.known(database, of)).collection
        manifest = await self._mirror.pinned.find(collection.id, snapshot, fresh)
        if manifest is None:  # the name may mean another collection now
            current = (await self.fresh(database, of)).collection
            if current.id != collection.id:
                manifest = await self._mirror.pinned.find(current.id, snapshot, fresh)
        if manifest is None:
            raise collection_not_found(name, database)
        return manifest

    def _known(self, database: str, name: str) -> Manifest:
        check_database(database)
        manifest = self._mirror.find(database, name)
        if manifest is None:
            raise collection_not_found(name, database)
        return manifest


def read_only(name: str) -> MishardsError:
    return invalid(f"{name} is a snapshot: it can be read, not changed")


def check_database(database: str) -> None:
    """Only `default` exists in this version."""
    if database != DEFAULT_DATABASE:
        raise MishardsError(Kind.DATABASE_NOT_FOUND, f"database not found[database={database}]")


def check_loaded(collection: Collection, name: str, partitions: Sequence[str]) -> None:
    """COLLECTION_NOT_LOADED, or what is wrong with the partitions."""
    if not collection.loaded:
        raise MishardsError(Kind.COLLECTION_NOT_LOADED, f"collection not loaded[collection={name}]")
    readable_partitions(collection, partitions)


def readable_partitions(collection: Collection, names: Sequence[str]) -> frozenset[PartitionId]:
    """The partitions a search reads: those named, or all that are loaded. PARTITION_NOT_FOUND / _NOT_LOADED."""
    released = set(collection.released_partitions)
    if not names:
        return frozenset(partition.id for partition in collection.partitions if partition.id not in released)
    wanted = set()
    for name in names:
        partition = collection.partition(name)
        if partition is None:
            raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={name}]")
        if partition.id in released:
            raise MishardsError(Kind.PARTITION_NOT_LOADED, f"partition not loaded[partition={name}]")
        wanted.add(partition.id)
    return frozenset(wanted)
