"""Restoring collections of a backup, into an empty cluster or beside others. Objects first, then one transaction each:
killed at any moment a collection is there whole or not at all. Until it is there, its folder in storage is listed as
nobody's (P12): what a killed restore has copied is garbage."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from mishards.backup.copying import Progress, Tick, copy_all
from mishards.backup.document import OBJECTS, Backup, SavedCollection
from mishards.backup.renewing import HOLD_S, renewed
from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, collection_not_found, invalid
from mishards.metadata.snapshots import restored
from mishards.model import Collection, CollectionId, File, FileId, Part
from mishards.ports import Import, MetadataStore, Storage


async def restore(
    store: MetadataStore,
    storage: Storage,
    target: Storage,
    clock: Clock,
    backup: Backup,
    wanted: Sequence[str],
    new_name: str,
    scratch: Path,
    progress: Progress,
) -> list[Collection]:
    """The new collections, not loaded: those named in `wanted` or all, under their names, or the one under `new_name`.
    UNEXPECTED before anything is copied if a name is taken."""
    chosen = _chosen(backup, wanted)
    if new_name and len(chosen) != 1:
        raise invalid(f"a new name is for one collection, {len(chosen)} would be restored")
    await _check_free(store, [new_name] if new_name else [name for saved in chosen for name in _names(saved)])
    total = sum(size for saved in chosen for size in saved.paths.values())
    tick = Tick(total, progress)
    return [
        await _restore_one(store, storage, target, clock, backup, saved, new_name, scratch, tick) for saved in chosen
    ]


def _chosen(backup: Backup, wanted: Sequence[str]) -> list[SavedCollection]:
    if not wanted:
        return list(backup.collections)
    found = {saved.definition.name: saved for saved in backup.collections}
    for name in wanted:
        if name not in found:
            raise collection_not_found(name)
    return [found[name] for name in wanted]


def _names(saved: SavedCollection) -> list[str]:
    return [saved.definition.name, *saved.definition.aliases]


async def _check_free(store: MetadataStore, names: Sequence[str]) -> None:
    heads = await store.heads()
    known = [collection for collection, _ in await store.collections([head.collection_id for head in heads])]
    taken = {name for one in known for name in (one.name, *one.aliases)}
    for name in names:
        if name in taken:
            raise MishardsError(Kind.UNEXPECTED, f"duplicate name: {name} is already used; restore it under another")


async def _restore_one(
    store: MetadataStore,
    storage: Storage,
    target: Storage,
    clock: Clock,
    backup: Backup,
    saved: SavedCollection,
    new_name: str,
    scratch: Path,
    tick: Tick,
) -> Collection:
    first = await store.take_ids(1 + len(saved.files))
    id = CollectionId(first)
    renamed = {path: _path_in(id, path) for path in saved.paths}
    from_target = {OBJECTS + path: new for path, new in renamed.items()}
    sizes = {OBJECTS + path: size for path, size in saved.paths.items()}
    ids = {file.id: FileId(first + 1 + number) for number, file in enumerate(saved.files)}
    origin = f"backup {backup.name}"
    collection = restored(saved.definition, id, new_name or saved.definition.name, clock, origin)
    if not new_name:
        collection = replace(collection, aliases=saved.definition.aliases)
    imported = Import(
        collection=collection,
        version=saved.version,
        ts=max(saved.ts, collection.created_ts),
        uuid=clock.token(),
        files=tuple(_file_in(collection.id, ids, file) for file in saved.files),
        payloads={ids[file_id]: data for file_id, data in saved.payloads.items()},
    )
    await store.open_folder(id, HOLD_S)
    try:
        async with renewed(partial(store.renew_folder, id, HOLD_S)):
            await copy_all(target, storage, from_target, sizes, scratch, tick)
        await store.import_collection(imported)
    except MishardsError as error:
        if error.kind is not Kind.METADATA_UNAVAILABLE:  # else it may be there
            with contextlib.suppress(MishardsError):
                await storage.delete(list(renamed.values()))
        raise
    return collection


def _path_in(id: CollectionId, path: str) -> str:
    """The object's name in the new collection: shard, token and name stay, which are unique for ever (P1)."""
    return f"{id}/{path.partition('/')[2]}"


def _file_in(id: CollectionId, ids: dict[FileId, FileId], file: File) -> File:
    def moved(part: Part) -> Part:
        return replace(part, path=_path_in(id, part.path)) if part.path else part

    return replace(file, id=ids[file.id], collection_id=id, parts=tuple(moved(part) for part in file.parts))
