"""Snapshots over any metadata service: taking one, what it shows, making a collection of one.

A snapshot is a pin that somebody named (P13). Nothing is copied, neither by taking one nor by restoring it: files never
change. The restored collection's records name the objects of the collection that it came from, and a pin of its own
keeps them there until no record of it needs them.
"""

from __future__ import annotations

from msgspec.structs import replace

from mishards.clock import Clock, hybrid
from mishards.errors import MishardsError, invalid
from mishards.model import Collection, CollectionId, File, FileId
from mishards.ports import Import, MetadataStore, Pin

MARK = "@"  # `collection@snapshot` names what is read; no other name holds it


def view_of(pin: Pin) -> Collection:
    """The collection as it was at the pin, under the pin's id. It needs no loading."""
    name = f"{pin.definition.name}{MARK}{pin.name}"
    return replace(pin.definition, id=pin.id, name=name, aliases=(), loaded=True, replicas=1, released_partitions=())


def is_snapshot(pin: Pin) -> bool:
    """Not what a backup or a restored collection holds."""
    return not pin.holder and not pin.expires


async def take(
    store: MetadataStore, clock: Clock, id: int, collection: Collection, name: str, description: str = ""
) -> Pin:
    """The snapshot of the newest version. Idempotent by the fresh `id`. UNEXPECTED if the name is taken."""
    pin = Pin(
        id=CollectionId(id),
        collection_id=collection.id,
        name=name,
        created_ms=clock.unix_ms(),
        definition=collection,
        description=description,
    )
    return await store.create_pin(pin)


async def hold(
    store: MetadataStore, clock: Clock, id: int, collection: Collection, ttl_s: float, snapshot: Pin | None = None
) -> Pin:
    """A nameless pin for a time, of the newest version or of a snapshot's: who copies files extends it."""
    pin = Pin(
        id=CollectionId(id),
        collection_id=collection.id,
        name=f"hold/{id}",
        created_ms=clock.unix_ms(),
        definition=collection,
    )
    return await store.create_pin(pin, ttl_s, None if snapshot is None else snapshot.id)


async def snapshots_of(store: MetadataStore, collection_id: CollectionId | None = None) -> list[Pin]:
    """The snapshots of a collection, or all, the oldest first."""
    return [pin for pin in await store.pins(collection_id) if is_snapshot(pin)]


async def require(store: MetadataStore, collection: Collection, name: str) -> Pin:
    """The snapshot of that name. PARAMETER_INVALID."""
    found = next((pin for pin in await snapshots_of(store, collection.id) if pin.name == name), None)
    if found is None:
        raise no_snapshot(collection.name, name)
    return found


def no_snapshot(collection: str, name: str) -> MishardsError:
    return invalid(f"snapshot not found[collection={collection}][snapshot={name}]")


async def restore(store: MetadataStore, clock: Clock, id: int, snapshot: Pin, name: str) -> Collection:
    """A new collection, not loaded, with the rows of the snapshot. Idempotent by the fresh `id`. UNEXPECTED if the name
    is taken, GONE if the snapshot is dropped meanwhile."""
    pin, delta = await store.pinned(snapshot.id)
    target = CollectionId(id)
    first = await store.take_ids(1 + len(delta.added))
    renamed = {file.id: FileId(first + 1 + number) for number, file in enumerate(delta.added)}
    payloads = await store.payloads([file.id for file in delta.added if file.inline])
    files = tuple(_adopted(file, renamed[file.id], target) for file in delta.added)
    held = replace(pin, id=CollectionId(first), name=f"restored/{id}", holder=target, created_ms=clock.unix_ms())
    collection = restored(pin.definition, target, name, clock, origin=f"{pin.definition.name}{MARK}{pin.name}")
    await store.import_collection(
        Import(
            collection=collection,
            version=pin.version,
            ts=max(pin.ts, collection.created_ts),
            uuid=clock.token(),
            files=files,
            payloads={renamed[file_id]: data for file_id, data in payloads.items()},
            pin=held if any(part.path for file in files for part in file.parts) else None,
        )
    )
    return collection


def restored(was: Collection, id: CollectionId, name: str, clock: Clock, origin: str) -> Collection:
    """The definition of a collection made of what another one was. Partitions and indexes keep their ids: the files
    name them."""
    now = hybrid(clock.unix_ms())
    return replace(
        was,
        id=id,
        name=name,
        aliases=(),
        loaded=False,
        released_partitions=(),
        created_ts=now,
        updated_ts=now,
        origin=origin,
    )


def _adopted(file: File, id: FileId, collection_id: CollectionId) -> File:
    """Its segment keeps its id, so that both collections' records of it are placed together and share memory."""
    return replace(file, id=id, collection_id=collection_id)
