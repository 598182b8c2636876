"""A collection made of files that exist: restored from a snapshot or a backup. One unit of work.

Its chain begins at the version of what it is made of, because rows carry the versions of their commits and tombstones
compare with them (P4): the next commit is newer than every row.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select, update

from mishards.clock import LOGICAL_BITS
from mishards.metadata.chain import file_row
from mishards.metadata.definitions import create_collection, newest_ts
from mishards.metadata.folders import give_folder
from mishards.metadata.pins import insert_pin, keep_borrowed
from mishards.metadata.tables import collections, commits, files, payloads
from mishards.model import Commit, File
from mishards.ports import Import


def import_collection(connection: Connection, imported: Import) -> None:
    """Everything before the chain's first version counts as forgotten."""
    collection = imported.collection
    if connection.scalar(select(collections.c.id).where(collections.c.id == collection.id)) is not None:
        return
    give_folder(connection, collection.id)
    if imported.pin is not None:
        keep_borrowed(connection, imported.pin)
    create_collection(connection, collection)
    if imported.version == 0:
        return
    last_ts = max(imported.ts, newest_ts(connection, collection))
    start = {"version": imported.version, "forgotten": imported.version, "last_ts": last_ts}
    connection.execute(update(collections).where(collections.c.id == collection.id).values(head=imported.uuid, **start))
    link = Commit(
        collection_id=collection.id,
        version=imported.version,
        uuid=imported.uuid,
        previous="",
        kind="ddl",
        ts=imported.ts,
    )
    connection.execute(insert(commits).values(**msgspec.structs.asdict(link)))
    if imported.files:
        connection.execute(insert(files), [_row(file, imported) for file in imported.files])
    if imported.payloads:
        rows = [{"file_id": id, "data": bytes(data)} for id, data in imported.payloads.items()]
        connection.execute(insert(payloads), rows)
    for pin in imported.pins:
        insert_pin(connection, pin)


def _row(file: File, imported: Import) -> dict[str, object]:
    """One removed before counts as removed now."""
    now_ms = imported.ts >> LOGICAL_BITS
    return {**file_row(file), "removed": file.removed, "removed_ms": now_ms if file.removed else None}
