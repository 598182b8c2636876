"""A new metadata service from what lies in storage: the last echo of each collection (P14).

What was committed or defined after a collection's last echo is lost. Versions go on far above those that were lost,
and ids above all that are seen, so that no name is ever used twice and no cache takes an old state for a part of the
new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from mishards.clock import Clock, hybrid
from mishards.errors import Kind, MishardsError
from mishards.metadata.echo import FOLDER, Echo, collection_of, decode
from mishards.model import Collection, CollectionId, FileKind, Version
from mishards.ports import Import, MetadataStore, Storage

GAP = 1 << 30  # versions between the echo and what comes next: more commits than were lost
EXAMPLES = 3  # missing objects that a problem names


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """How far a collection was restored."""

    collection_id: int
    name: str
    version: int  # of the echo
    at_ms: int  # of the echo
    files: int
    rows: int  # that are stored; those that fresh tombstones kill count
    snapshots: int
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    restored: tuple[Rebuilt, ...]
    problems: tuple[str, ...]  # why something is not restored, or not as it was


async def rebuild(store: MetadataStore, storage: Storage, clock: Clock) -> Report:
    """Restore every collection that has an echo whose objects are all there. CONFLICT unless the store is empty."""
    await _require_empty(store)
    problems: list[str] = []
    echoes = []
    for paths in _by_collection(await storage.list(f"{FOLDER}/")):
        echo = await _newest_whole(storage, paths, problems)
        if echo is not None:
            echoes.append(echo)
    await _raise_ids(store, echoes)
    taken: set[tuple[str, str]] = set()
    # Should two have a name, as after a drop that was not echoed any more, the younger one keeps it.
    echoes.sort(key=lambda echo: echo.collection.created_ts, reverse=True)
    restored = [await _restore(store, clock, echo, taken) for echo in echoes]
    return Report(restored=tuple(reversed(restored)), problems=tuple(problems))


async def _require_empty(store: MetadataStore) -> None:
    heads, dropped = await store.heads(), await store.dropped_collections(0.0)
    if heads or dropped:
        message = f"the metadata service is not empty: it has {len(heads)} collections and {len(dropped)} dropped ones"
        raise MishardsError(Kind.CONFLICT, message)


def _by_collection(paths: Iterable[str]) -> list[list[str]]:
    """The paths of each collection's echoes, the newest first."""
    found: dict[CollectionId, list[str]] = {}
    for path in sorted(paths, reverse=True):
        id = collection_of(path)
        if id is not None:
            found.setdefault(id, []).append(path)
    return [found[id] for id in sorted(found)]


async def _newest_whole(storage: Storage, paths: Sequence[str], problems: list[str]) -> Echo | None:
    """The newest echo that can be read and whose objects are there. An older one of a living collection is as a rule
    not whole: garbage collection has gone on."""
    for path in paths:
        try:
            echo = decode(await storage.get(path), path)
        except MishardsError as error:
            problems.append(error.message)
            continue
        missing = await _missing(storage, echo)
        if not missing:
            return echo
        some = ", ".join(missing[:EXAMPLES])
        problems.append(
            f"echo of collection {echo.collection.name} at version {echo.version} is not restored: "
            f"{len(missing)} objects are missing, such as {some}"
        )
    return None


async def _missing(storage: Storage, echo: Echo) -> list[str]:
    named = {part.path for file in echo.files for part in file.parts if part.path}
    stored: set[str] = set()
    for folder in sorted({path.partition("/")[0] for path in named}):  # a restored snapshot names another one's
        stored.update(await storage.list(f"{folder}/"))
    lost = [f"payload of file {file.id}" for file in echo.files if file.inline and file.id not in echo.payloads]
    return [*sorted(named - stored), *lost]


async def _raise_ids(store: MetadataStore, echoes: Iterable[Echo]) -> None:
    """Fresh ids are above all that are seen, even if this machine's clock is behind."""
    seen = max((id for echo in echoes for id in _ids(echo)), default=0)
    first = await store.take_ids(1)
    if first <= seen:
        await store.take_ids(seen - first + GAP)


def _ids(echo: Echo) -> Iterable[int]:
    collection = echo.collection
    yield collection.id
    yield from (partition.id for partition in collection.partitions)
    yield from (index.id for index in collection.indexes)
    yield from (pin.id for pin in echo.pins)
    for file in echo.files:
        yield from (file.id, file.segment_id)


async def _restore(store: MetadataStore, clock: Clock, echo: Echo, taken: set[tuple[str, str]]) -> Rebuilt:
    collection, notes = _named(echo.collection, taken)
    now = hybrid(clock.unix_ms())
    await store.import_collection(
        Import(
            collection=collection,
            version=Version(echo.version + GAP),
            ts=max(echo.ts, now),
            uuid=clock.token(),
            files=echo.files,
            payloads=echo.payloads,
            pins=echo.pins,
        )
    )
    live = [file for file in echo.files if not file.removed]
    return Rebuilt(
        collection_id=collection.id,
        name=collection.name,
        version=echo.version,
        at_ms=echo.at_ms,
        files=len(live),
        rows=sum(file.rows - file.dead for file in live if file.kind is not FileKind.TOMBSTONES),
        snapshots=sum(not pin.holder for pin in echo.pins),
        notes=notes,
    )


def _named(collection: Collection, taken: set[tuple[str, str]]) -> tuple[Collection, tuple[str, ...]]:
    """The collection with names that nobody has yet, and what had to be changed."""
    database, notes = collection.database, []
    name, aliases = collection.name, collection.aliases
    if (database, name) in taken:
        name = f"{name}_{collection.id}"
        notes.append(f"was {collection.name}, a name that another collection has")
    kept = tuple(alias for alias in aliases if (database, alias) not in taken)
    if kept != aliases:
        notes.append(f"without the aliases {', '.join(sorted(set(aliases) - set(kept)))}, which others have")
    taken.update((database, each) for each in (name, *kept))
    return replace(collection, name=name, aliases=kept), tuple(notes)
