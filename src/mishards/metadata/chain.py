"""The chain of commits of a collection and the files that it lists (P3, P5). Each function is one unit of work.

A commit takes its locks in the order leases, collection: whatever does not need the version comes before the
collection's row is locked, so that commits of different writers to one collection exclude each other only briefly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Column, ColumnElement, Connection, Row, insert, select, update

from mishards.clock import hybrid
from mishards.errors import Kind, MishardsError, collection_not_found, renamed
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.deltas import stamp
from mishards.metadata.manifest import HEADS_MAX
from mishards.metadata.requests import record_requests
from mishards.metadata.tables import LIVE, collections, commits, files, leases, payloads
from mishards.model import Collection, CollectionId, Commit, Delta, File, FileId, FileKind, Version
from mishards.ports import FORKED, CommitRequest


def commit(connection: Connection, request: CommitRequest) -> Commit:
    """The new link of the chain. The unique (collection, uuid) refuses the same commit a second time."""
    _hold_leases(connection, request.leases)
    if request.payloads:
        rows = [{"file_id": id, "data": bytes(data)} for id, data in request.payloads.items()]
        connection.execute(insert(payloads), rows)
    record_requests(connection, request.requests, request.collection_id, request.uuid)
    row = collections.c
    head = lock_collection(connection, request.collection_id, row.version, row.head, row.last_ts, row.updated_ts)
    if request.defined_ts not in (0, head.updated_ts):
        document = connection.scalars(select(row.document).where(row.id == request.collection_id)).one()
        defined = msgspec.json.decode(document, type=Collection)
        require_names(request, defined)
        require_partitions(request, defined)
    if request.follows:
        _check_chain(connection, request)
    _check_made_of(connection, request, head.version)
    link = Commit(
        collection_id=request.collection_id,
        version=Version(head.version + 1),
        uuid=request.uuid,
        previous=head.head,
        kind=request.kind,
        ts=max(hybrid(request.now_ms), head.last_ts + 1),
    )
    _remove_files(connection, request, link.version)
    if request.added:
        connection.execute(insert(files), [file_row(stamp(file, link.version, link.ts)) for file in request.added])
    connection.execute(
        update(collections)
        .where(collections.c.id == request.collection_id)
        .values(version=link.version, head=link.uuid, last_ts=link.ts)
    )
    connection.execute(insert(commits).values(**msgspec.structs.asdict(link)))
    return link


def find_commit(connection: Connection, collection_id: CollectionId, uuid: str) -> Commit | None:
    """Run in a writing transaction: its lock waits for a commit in flight, so that None means that there is none."""
    connection.execute(select(collections.c.id).where(collections.c.id == collection_id).with_for_update())
    row = connection.execute(
        select(commits).where(commits.c.collection_id == collection_id, commits.c.uuid == uuid)
    ).one_or_none()
    return _commit_of(row) if row else None


def read_commits(connection: Connection, collection_id: CollectionId, after: Version) -> list[Commit]:
    rows = connection.execute(
        select(commits)
        .where(commits.c.collection_id == collection_id, commits.c.version > after)
        .order_by(commits.c.version)
    )
    return [_commit_of(row) for row in rows]


def delta(connection: Connection, collection_id: CollectionId, after: Version) -> Delta:
    head = connection.execute(
        select(collections).where(collections.c.id == collection_id, collections.c.state == LIVE)
    ).one_or_none()
    if head is None:
        raise collection_not_found(str(collection_id))
    if after < head.forgotten:
        after = Version(0)
    removed: dict[FileId, Version] = {}
    if after == 0:
        added = _read_files(connection, collection_id, files.c.removed == 0)
    else:
        added = _read_files(connection, collection_id, files.c.added > after)
        rows = connection.execute(
            select(files.c.id, files.c.removed).where(files.c.collection_id == collection_id, files.c.removed > after)
        )
        removed = {FileId(row.id): Version(row.removed) for row in rows}
    uuids = _uuids(connection, collection_id, after, head.version)
    return Delta(
        collection_id=collection_id,
        after=after,
        version=Version(head.version),
        ts=head.last_ts,
        head=head.head,
        previous=uuids.pop(after, ""),
        heads=uuids,
        added=added,
        removed=removed,
    )


def _uuids(connection: Connection, collection_id: CollectionId, after: Version, newest: int) -> dict[Version, str]:
    """Of the commit `after` and of the newest ones that follow it, those that are not forgotten."""
    row = commits.c
    wanted = (row.version == after) | (row.version > max(after, newest - HEADS_MAX))
    rows = connection.execute(
        select(row.version, row.uuid).where(row.collection_id == collection_id, wanted).order_by(row.version)
    )
    return {Version(found.version): found.uuid for found in rows}


def _uuid(connection: Connection, collection_id: CollectionId, version: Version) -> str:
    """Of that commit; "" when it is forgotten, or never was."""
    at = (commits.c.collection_id == collection_id) & (commits.c.version == version)
    return connection.scalar(select(commits.c.uuid).where(at)) or ""


def read_payloads(connection: Connection, ids: Sequence[FileId]) -> dict[FileId, bytes]:
    found: dict[FileId, bytes] = {}
    for batch in batches(ids):
        rows = connection.execute(select(payloads).where(payloads.c.file_id.in_(batch)))
        found |= {FileId(row.file_id): row.data for row in rows}
    return found


def file_of(row: Row[str, int]) -> File:
    """The file of a row with `document` and `removed`."""
    file = msgspec.json.decode(row.document, type=File)
    return replace(file, removed=Version(row.removed)) if row.removed else file


def _hold_leases(connection: Connection, pairs: Sequence[tuple[str, str]]) -> None:
    """Lock the leases until the transaction ends; FENCED if one is not ours any more (P2, I1)."""
    if not pairs:
        return
    wanted = dict(pairs)
    rows = connection.execute(
        select(leases.c.name, leases.c.nonce).where(leases.c.name.in_(wanted)).order_by(leases.c.name).with_for_update()
    )
    held = {row.name: row.nonce for row in rows}
    for name, nonce in wanted.items():
        if held.get(name) != nonce:
            raise MishardsError(Kind.FENCED, f"lease {name} is not held any more by nonce {nonce}", detail=name)


def lock_collection(connection: Connection, collection_id: CollectionId, *wanted: Column[Any]) -> Row[Any]:
    """These columns of a live collection, which nobody else changes until the transaction ends."""
    live = (collections.c.id == collection_id) & (collections.c.state == LIVE)
    head = connection.execute(select(*wanted).where(live).with_for_update()).one_or_none()
    if head is None:
        raise collection_not_found(str(collection_id))
    return head


def require_names(request: CommitRequest, collection: Collection) -> None:
    """COLLECTION_NOT_FOUND if a client called it by a name that is another one's by now, or nobody's."""
    for name in request.names:
        if not collection.is_called(name):
            raise renamed(name, collection.database)


def require_partitions(request: CommitRequest, collection: Collection) -> None:
    """PARTITION_NOT_FOUND if rows are of one that the collection has no more: nobody would ever see them."""
    defined = {partition.id for partition in collection.partitions}
    for file in request.added:
        if file.kind is FileKind.ROWS and file.partition_id not in defined:
            id = str(file.partition_id)
            raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={id}]", detail=id)


def _check_chain(connection: Connection, request: CommitRequest) -> None:
    """CONFLICT if the database has lost a commit that was acknowledged to who commits now."""
    at = (commits.c.collection_id == request.collection_id) & (commits.c.uuid == request.follows)
    if connection.scalar(select(commits.c.version).where(at)) is None:
        message = f"commit {request.follows} of collection {request.collection_id} is lost"
        raise MishardsError(Kind.CONFLICT, message, detail=FORKED)


def _check_made_of(connection: Connection, request: CommitRequest, newest: int) -> None:
    """CONFLICT if the database has lost a version that the commit was computed from: segments hold versions of rows and
    horizons, which mean nothing on another chain, even if the same files are live there under other versions."""
    for version, uuid in request.made_of:
        known = _uuid(connection, request.collection_id, version)
        if version > newest or known not in ("", uuid):
            raise outdated(request, version)


def outdated(request: CommitRequest, version: int) -> MishardsError:
    message = f"version {version} of collection {request.collection_id} is lost: what was made of it is outdated"
    return MishardsError(Kind.CONFLICT, message)


def _remove_files(connection: Connection, request: CommitRequest, version: Version) -> None:
    """CONFLICT unless each of them is live: no file is an input of two layout commits (P5, I12)."""
    changed = 0
    for batch in batches(request.removed):
        live = (files.c.collection_id == request.collection_id) & (files.c.removed == 0)
        result = connection.execute(
            update(files).where(live, files.c.id.in_(batch)).values(removed=version, removed_ms=DatabaseMs())
        )
        changed += result.rowcount
    if changed != len(request.removed):
        message = f"{len(request.removed) - changed} of {len(request.removed)} files to be replaced are not live"
        raise MishardsError(Kind.CONFLICT, message)


def file_row(file: File) -> dict[str, object]:
    """The row of a live file."""
    return {
        "id": file.id,
        "collection_id": file.collection_id,
        "kind": int(file.kind),
        "added": file.added,
        "removed": 0,
        "document": msgspec.json.encode(file).decode(),
    }


def _read_files(connection: Connection, collection_id: CollectionId, which: ColumnElement[bool]) -> tuple[File, ...]:
    rows = connection.execute(
        select(files.c.document, files.c.removed)
        .where(files.c.collection_id == collection_id, which)
        .order_by(files.c.id)
    )
    return tuple(file_of(row) for row in rows)


def _commit_of(row: Row[Any, Any, Any, Any, Any, Any]) -> Commit:
    return Commit(**row._asdict())
