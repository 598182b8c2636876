"""What may be deleted: records of files that were removed (P12). Each function is one unit of work."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update

from mishards.metadata.chain import file_of
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.tables import collections, files, payloads
from mishards.model import File, FileId


def removed_files(connection: Connection, older_than_s: float, limit: int) -> list[File]:
    rows = connection.execute(
        select(files.c.document, files.c.removed)
        .where(files.c.removed_ms <= DatabaseMs() - int(older_than_s * 1000))
        .order_by(files.c.removed_ms)
        .limit(limit)
    )
    return [file_of(row) for row in rows]


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
