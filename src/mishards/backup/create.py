"""Making a backup: pin, copy what the target lacks, write the document last (P13).

Killed at any moment it leaves no backup, only objects that the next one need not copy again and pins that end by
themselves. What an earlier complete backup vouches for is not looked at; objects that none does are read back first.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mishards.backup import document
from mishards.backup.copying import Progress, Tick, copy_all, look_at
from mishards.backup.document import OBJECTS, Backup, SavedCollection, StoredObject
from mishards.backup.renewing import HOLD_S, renewed
from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, collection_not_found, invalid
from mishards.metadata import snapshots
from mishards.model import Collection
from mishards.ports import MetadataStore, Pin, Storage


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup and what it cost."""

    backup: Backup
    objects_copied: int
    bytes_copied: int


async def create(
    store: MetadataStore,
    source: Storage,
    target: Storage,
    clock: Clock,
    name: str,
    wanted: Sequence[str],
    snapshot: str,
    scratch: Path,
    progress: Progress,
) -> Made:
    """A backup of the named collections, or of all, as of now, or as of the snapshot of that name; each is consistent
    in itself. PARAMETER_INVALID if there is a backup of that name, COLLECTION_NOT_FOUND."""
    document.check_name(name)
    if name in await document.names(target):
        raise invalid(f"there is a backup {name} already")
    chosen = await _chosen(store, wanted)
    mark = document.FOLDER + name + document.UNFINISHED
    await target.put(mark, b"")
    async with _pinned(store, clock, chosen, snapshot) as pins:
        saved = [await _save(store, pin) for pin in pins]
        sizes = {path: size for one in saved for path, size in one.paths.items()}
        tick = Tick(sum(sizes.values()), progress)
        present = await _present(target, sizes, scratch, tick)
        missing = {path: OBJECTS + path for path in sizes if path not in present}
        copied = await copy_all(source, target, missing, sizes, scratch, tick)
        for pin in pins:
            await store.renew_pin(pin.id, HOLD_S)  # it held until now: nothing copied was incomplete
        objects = present | copied
        backup = Backup(
            name=name,
            created_ms=clock.unix_ms(),
            collections=tuple(saved),
            objects=tuple(objects[path] for path in sorted(objects)),
        )
        await document.write(target, backup)
    await target.delete([mark])
    return Made(backup, len(copied), sum(stored.bytes for stored in copied.values()))


async def _chosen(store: MetadataStore, wanted: Sequence[str]) -> list[Collection]:
    heads = await store.heads()
    known = [collection for collection, _ in await store.collections([head.collection_id for head in heads])]
    if not wanted:
        return sorted(known, key=lambda collection: collection.name)
    found = {name: one for one in known for name in (one.name, *one.aliases)}
    for name in wanted:
        if name not in found:
            raise collection_not_found(name)
    return list({found[name].id: found[name] for name in wanted}.values())


@asynccontextmanager
async def _pinned(
    store: MetadataStore, clock: Clock, collections: Iterable[Collection], snapshot: str
) -> AsyncIterator[list[Pin]]:
    """A pin of each, extended as long as the block runs, dropped after it."""
    async with AsyncExitStack() as parts:
        pins = []
        for collection in collections:
            base = await snapshots.require(store, collection, snapshot) if snapshot else None
            id = await store.take_ids(1)
            pins.append(await snapshots.hold(store, clock, id, collection, HOLD_S, base))
            parts.push_async_callback(_drop, store, pins[-1])
        await parts.enter_async_context(renewed(partial(_renew, store, pins)))
        yield pins


async def _renew(store: MetadataStore, pins: Sequence[Pin]) -> None:
    for pin in pins:
        with contextlib.suppress(MishardsError):  # another one may still be held
            await store.renew_pin(pin.id, HOLD_S)


async def _drop(store: MetadataStore, pin: Pin) -> None:
    with contextlib.suppress(MishardsError):  # it ends by itself
        await store.drop_pin(pin.id)


async def _save(store: MetadataStore, pin: Pin) -> SavedCollection:
    found, delta = await store.pinned(pin.id)
    payloads = await store.payloads([file.id for file in delta.added if file.inline])
    return SavedCollection(
        definition=found.definition, version=found.version, ts=found.ts, files=delta.added, payloads=payloads
    )


async def _present(target: Storage, sizes: dict[str, int], scratch: Path, tick: Tick) -> dict[str, StoredObject]:
    """Those of the wanted objects that the target has, whole."""
    vouched = {stored.path: stored for backup in await document.read_all(target) for stored in backup.objects}
    listed: set[str] = set()
    for folder in sorted({path.partition("/")[0] for path in sizes}):
        listed.update(await target.list(f"{OBJECTS}{folder}/"))
    present: dict[str, StoredObject] = {}
    for path in sizes:
        if OBJECTS + path not in listed:
            continue
        if path in vouched:
            present[path] = vouched[path]
        elif (stored := await _read_back(target, path, scratch)) is not None:
            present[path] = stored
        else:
            continue
        tick(sizes[path])
    return present


async def _read_back(target: Storage, path: str, scratch: Path) -> StoredObject | None:
    """What an interrupted backup has copied; None if it is not whole."""
    local = scratch / "check"
    try:
        return await look_at(target, OBJECTS + path, local, path)
    except MishardsError as error:
        if error.kind not in (Kind.STORAGE_UNAVAILABLE, Kind.GONE):
            raise
        return None
    finally:
        local.unlink(missing_ok=True)
