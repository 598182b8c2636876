"""What may be deleted: records of removed files (P12), of commits and leases long ago, and uploads that no commit can
list any more. Each function is one unit of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, and_, delete, exists, func, not_, select, true, update

from mishards.clock import LOGICAL_BITS
from mishards.metadata.chain import file_of
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.pins import is_pinned, own_parts, release_borrowed
from mishards.metadata.tables import DROPPED, collections, commits, files, leases, payloads
from mishards.model import CollectionId, File, FileId, FileKind, Part, Version

COMMITS_MAX = 10_000  # forgotten of one collection in one transaction, which others wait for (P15)


class _Parts(msgspec.Struct):
    """What of a file's document names objects."""

    parts: tuple[Part, ...] = ()


def removed_files(
    connection: Connection,
    older_than_s: float,
    limit: int,
    kind: FileKind | None,
    needed: Mapping[CollectionId, Version],
    pinned: bool,
) -> list[File]:
    wanted = true() if kind is None else files.c.kind == int(kind)
    free = [not_(and_(files.c.collection_id == id, files.c.removed > floor)) for id, floor in needed.items()]
    if not pinned:
        dropped = exists().where(collections.c.id == files.c.collection_id, collections.c.state == DROPPED)
        free += [not_(is_pinned()), not_(dropped)]  # what is dropped goes as a whole
    rows = connection.execute(
        select(files.c.document, files.c.removed)
        .where(files.c.removed_ms <= DatabaseMs() - int(older_than_s * 1000), wanted, *free)
        .order_by(files.c.removed_ms)
        .limit(limit)
    )
    found = [file_of(row) for row in rows]
    return found if pinned else [own_parts(file) for file in found]


def forget_commits(connection: Connection, older_than_s: float, keep: int) -> int:
    """Their hybrid timestamps, by the clocks of writers, are near enough for an age of days."""
    oldest_ts = (DatabaseMs() - int(older_than_s * 1000)) * (1 << LOGICAL_BITS)
    chains = connection.execute(
        select(commits.c.collection_id, func.min(commits.c.version).label("first"), collections.c.version)
        .join(collections, collections.c.id == commits.c.collection_id)
        .group_by(commits.c.collection_id, collections.c.version)
    ).all()
    forgotten = 0
    for chain in chains:
        last = min(chain.version - keep, chain.first + COMMITS_MAX - 1)
        old = (commits.c.collection_id == chain.collection_id) & (commits.c.version <= last)
        if last >= chain.first:
            forgotten += connection.execute(delete(commits).where(old, commits.c.ts < oldest_ts)).rowcount
    return forgotten


def forget_files(connection: Connection, ids: Sequence[FileId]) -> None:
    """Their collections remember the newest removal of them, so that nobody gets a delta that lacks it."""
    for batch in batches(ids):
        removed = files.c.id.in_(batch) & (files.c.removed > 0)
        newest = connection.execute(
            select(files.c.collection_id, func.max(files.c.removed).label("version"))
            .where(removed)
            .group_by(files.c.collection_id)
        ).all()
        for row in newest:
            connection.execute(
                update(collections)
                .where(collections.c.id == row.collection_id, collections.c.forgotten < row.version)
                .values(forgotten=row.version)
            )
        connection.execute(delete(payloads).where(payloads.c.file_id.in_(select(files.c.id).where(removed))))
        connection.execute(delete(files).where(removed))
        for row in newest:
            release_borrowed(connection, row.collection_id)


def forget_leases(connection: Connection, older_than_s: float) -> int:
    """Their nonces can commit nothing from then on, so that what was uploaded under them can be told to be garbage."""
    return connection.execute(
        delete(leases).where(leases.c.until_ms <= DatabaseMs() - int(older_than_s * 1000))
    ).rowcount


def orphans(connection: Connection, collection_id: CollectionId, paths: Sequence[str]) -> list[str]:
    """The nonces are read first: a commit proves its nonce on a locked row, so one whose nonce is not found here has
    committed already, and its files are found below, or never will (P12)."""
    held = set(connection.scalars(select(leases.c.nonce)))
    fenced = [path for path in paths if path.split("/")[2] not in held]
    if not fenced:
        return []
    named: set[str] = set()
    for document in connection.scalars(select(files.c.document).where(files.c.collection_id == collection_id)):
        named.update(part.path for part in msgspec.json.decode(document, type=_Parts).parts)
    return [path for path in fenced if path not in named]
