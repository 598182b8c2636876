"""What may be deleted: records of removed files (P12), and of commits long ago. Each function is one unit of work."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, true, update

from mishards.clock import LOGICAL_BITS
from mishards.metadata.chain import file_of
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.tables import collections, commits, files, payloads
from mishards.model import File, FileId, FileKind

COMMITS_MAX = 10_000  # forgotten of one collection in one transaction, which others wait for (P15)


def removed_files(connection: Connection, older_than_s: float, limit: int, kind: FileKind | None) -> list[File]:
    wanted = true() if kind is None else files.c.kind == int(kind)
    rows = connection.execute(
        select(files.c.document, files.c.removed)
        .where(files.c.removed_ms <= DatabaseMs() - int(older_than_s * 1000), wanted)
        .order_by(files.c.removed_ms)
        .limit(limit)
    )
    return [file_of(row) for row in rows]


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
