"""What the metadata service knows, as plain values: the records of `metadata/tables.py`, in dictionaries.

Records are immutable and replaced, so that a copy of the dictionaries is a copy of the whole state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from msgspec.structs import replace

from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.metadata.chain import outdated, require_names, require_partitions
from mishards.metadata.definitions import Name, name_taken, names_of
from mishards.metadata.folders import folder_closed
from mishards.metadata.pins import EXPIRY_MARGIN_S
from mishards.metadata.requests import ABORTED
from mishards.model import Collection, CollectionId, Commit, File, FileId, Member, NodeId, Version
from mishards.ports import CommitRequest, Pin, RequestOutcome

FIRST_ID = 1000


class Entry(NamedTuple):
    """A collection."""

    collection: Collection
    last_ts: int
    ddl: int = 1
    version: Version = Version(0)
    head: str = ""
    forgotten: Version = Version(0)
    dropped_ms: int | None = None  # None: it is live


class Listed(NamedTuple):
    """A file, live or removed at that time."""

    file: File
    removed_ms: int = 0


class Held(NamedTuple):
    """A lease."""

    owner: NodeId
    nonce: str
    until_ms: int


class Kept(NamedTuple):
    """A pin; without an end it is for ever."""

    pin: Pin
    until_ms: int | None

    def in_force(self, now_ms: int) -> bool:
        return self.until_ms is None or self.until_ms > now_ms

    def holds(self, now_ms: int) -> bool:
        return self.in_force(now_ms - EXPIRY_MARGIN_S * 1000)

    @property
    def is_snapshot(self) -> bool:
        return self.pin.holder == 0 and self.until_ms is None


class Recorded(NamedTuple):
    """A request's outcome: the commit (or definition) that carried it out, or that it was given up."""

    collection_id: CollectionId
    uuid: str
    at_ms: int


class Folder(NamedTuple):
    """One in storage that belongs to no collection, to be emptied then, unless it is `filling` still."""

    filling: bool
    since_ms: int
    due_ms: int


@dataclass(slots=True)
class Tables:
    """All records."""

    next_id: int = FIRST_ID
    collections: dict[CollectionId, Entry] = field(default_factory=dict)
    names: dict[tuple[str, str], tuple[CollectionId, bool]] = field(default_factory=dict)  # whose, and if an alias
    files: dict[FileId, Listed] = field(default_factory=dict)
    payloads: dict[FileId, bytes] = field(default_factory=dict)
    commits: dict[tuple[CollectionId, str], Commit] = field(default_factory=dict)  # by uuid; in order
    leases: dict[str, Held] = field(default_factory=dict)
    pins: dict[CollectionId, Kept] = field(default_factory=dict)
    members: dict[NodeId, Member] = field(default_factory=dict)
    requests: dict[str, Recorded] = field(default_factory=dict)
    folders: dict[CollectionId, Folder] = field(default_factory=dict)

    def copy(self) -> Tables:
        tables: dict[str, Any] = {each.name: copy(getattr(self, each.name)) for each in fields(self)}
        return Tables(**tables)

    def live(self, id: CollectionId) -> Entry:
        """COLLECTION_NOT_FOUND."""
        entry = self.collections.get(id)
        if entry is None or entry.dropped_ms is not None:
            raise collection_not_found(str(id))
        return entry

    def files_of(self, id: CollectionId) -> Iterator[File]:
        return (listed.file for listed in self.files.values() if listed.file.collection_id == id)

    def chain(self, id: CollectionId) -> Iterator[Commit]:
        """The commits of a collection, in order."""
        return (commit for commit in self.commits.values() if commit.collection_id == id)

    def outcomes(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        found = {}
        for id in sorted(set(ids) & self.requests.keys()):
            recorded = self.requests[id]
            commit = self.commits.get((recorded.collection_id, recorded.uuid))
            version, ts = (commit.version, commit.ts) if commit else (Version(0), 0)
            found[id] = RequestOutcome(recorded.uuid != ABORTED, recorded.collection_id, version, ts)
        return found


# -------------------------------------------------------------------------------------------- rules, one function each


def insert_collection(tables: Tables, collection: Collection) -> None:
    claim(tables, collection.id, names_of(collection))
    namesakes = [entry for entry in tables.collections.values() if entry.collection.name == collection.name]
    newest_ts = max((entry.last_ts for entry in namesakes), default=0)
    tables.collections[collection.id] = Entry(collection, max(collection.created_ts, newest_ts))


def claim(tables: Tables, id: CollectionId, names: Iterable[Name]) -> None:
    """A name belongs to one collection, in any role."""
    for name in names:
        if (name.database, name.name) in tables.names:
            holder, alias = tables.names[name.database, name.name]
            raise name_taken(name, alias, tables.collections[holder].collection.name)
        tables.names[name.database, name.name] = (id, name.alias)


def require_unchanged(tables: Tables, old: Collection) -> None:
    """CONFLICT unless the collection is as `old`."""
    entry = tables.collections.get(old.id)
    if entry is None or entry.dropped_ms is not None:
        raise collection_not_found(old.name, old.database)
    updated_ts = entry.collection.updated_ts
    if updated_ts != old.updated_ts:
        message = f"collection {old.name} has changed: schema timestamp {updated_ts}, expected {old.updated_ts}"
        raise MishardsError(Kind.CONFLICT, message)


def hold_leases(tables: Tables, pairs: Sequence[tuple[str, str]]) -> None:
    """FENCED if one is not held by that nonce (P2, I1)."""
    for name, nonce in pairs:
        if name not in tables.leases or tables.leases[name].nonce != nonce:
            raise MishardsError(Kind.FENCED, f"lease {name} is not held any more by nonce {nonce}", detail=name)


def record_requests(tables: Tables, ids: Sequence[str], collection_id: CollectionId, uuid: str, now_ms: int) -> None:
    """CONFLICT if one of them has an outcome already (P3)."""
    if not tables.requests.keys().isdisjoint(ids):
        raise MishardsError(Kind.CONFLICT, "a request of this commit has taken effect or was given up already")
    for id in ids:
        tables.requests[id] = Recorded(collection_id, uuid, now_ms)


def check_partitions(request: CommitRequest, entry: Entry) -> None:
    """PARTITION_NOT_FOUND if that of some rows was dropped since they were checked."""
    if request.defined_ts not in (0, entry.collection.updated_ts):
        require_names(request, entry.collection)
        require_partitions(request, entry.collection)


def check_made_of(tables: Tables, request: CommitRequest, entry: Entry) -> None:
    """CONFLICT if a version that it was computed from is lost."""
    if request.made_of:
        uuids = {commit.version: commit.uuid for commit in tables.chain(request.collection_id)}
        for version, uuid in request.made_of:
            if version > entry.version or uuids.get(version, uuid) != uuid:
                raise outdated(request, version)


def remove_files(tables: Tables, request: CommitRequest, version: Version, now_ms: int) -> None:
    """CONFLICT unless each of them is live (P5, I12)."""
    missing = 0
    for id in request.removed:
        listed = tables.files.get(id)
        if listed is None or listed.file.removed or listed.file.collection_id != request.collection_id:
            missing += 1
        else:
            tables.files[id] = Listed(replace(listed.file, removed=version), now_ms)
    if missing:
        message = f"{missing} of {len(request.removed)} files to be replaced are not live"
        raise MishardsError(Kind.CONFLICT, message)


def list_files(tables: Tables, added: Sequence[Listed], payloads: Mapping[FileId, bytes]) -> None:
    """INTERNAL if an id is in use: the unique keys of the database refuse it."""
    ids = {listed.file.id for listed in added}
    if len(ids) < len(added) or tables.files.keys() & ids or tables.payloads.keys() & payloads.keys():
        raise MishardsError(Kind.INTERNAL, "a file of that id exists")
    tables.files |= {listed.file.id: listed for listed in added}
    tables.payloads |= {id: bytes(data) for id, data in payloads.items()}


def insert_pin(tables: Tables, kept: Kept) -> None:
    pin = kept.pin
    names = {other.pin.name for other in tables.pins.values() if other.pin.collection_id == pin.collection_id}
    if pin.name in names:
        raise MishardsError(Kind.UNEXPECTED, f"snapshot {pin.name} already exists in collection {pin.definition.name}")
    tables.pins[pin.id] = kept


def give_folder(tables: Tables, id: CollectionId) -> None:
    """GONE if the collection's folder was taken meanwhile."""
    folder = tables.folders.pop(id, None)
    if folder is not None and not folder.filling:
        raise folder_closed(id)


def keep_borrowed(tables: Tables, pin: Pin) -> None:
    """CONFLICT unless a snapshot keeps what the pin is to keep."""
    same = (kept for kept in tables.pins.values() if kept.pin.collection_id == pin.collection_id and kept.is_snapshot)
    if all(kept.pin.version != pin.version for kept in same):
        raise MishardsError(Kind.CONFLICT, f"no snapshot keeps version {pin.version} of collection {pin.collection_id}")
    insert_pin(tables, Kept(pin, None))


def drop_pins(tables: Tables, which: Callable[[Kept], bool]) -> None:
    tables.pins = {id: kept for id, kept in tables.pins.items() if not which(kept)}


def is_pinned(tables: Tables, file: File, now_ms: int) -> bool:
    """Whether a pin needs the removed file (P13)."""
    return any(
        kept.pin.collection_id == file.collection_id
        and file.added <= kept.pin.version < file.removed
        and kept.holds(now_ms)
        for kept in tables.pins.values()
    )


def orphans(tables: Tables, collection_id: CollectionId, paths: Sequence[str]) -> list[str]:
    """Those that no record names and no lease may still list (P12)."""
    nonces = {held.nonce for held in tables.leases.values()}
    named = {part.path for file in tables.files_of(collection_id) for part in file.parts}
    return [path for path in paths if path.split("/")[2] not in nonces and path not in named]
