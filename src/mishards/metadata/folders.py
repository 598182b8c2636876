"""Folders in storage that belong to no collection: whatever lies in them, or comes later, is garbage (P12).

A restore fills the folder of a fresh id before there is a collection; if it does not go on, it is fenced first and its
objects are deleted then. When a dropped collection is forgotten its folder stays listed: what a process that was paused
meanwhile uploads goes too. Ids are never used again, so a folder leaves this list only by becoming a collection's.
Each function is one unit of work.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, insert, not_, select, update

from mishards.errors import Kind, MishardsError
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.tables import collections, folders
from mishards.model import CollectionId

FIRST_LOOK_MS = 600_000  # after its collection was forgotten


def open_folder(connection: Connection, collection_id: CollectionId, ttl_s: float) -> None:
    """Let it be filled. An attempt whose answer was lost may have done so already."""
    known = connection.scalar(select(folders.c.filling).where(folders.c.collection_id == collection_id))
    if known is None:
        _insert(connection, collection_id, filling=True, due_in_ms=int(ttl_s * 1000))
    elif not known:
        raise folder_closed(collection_id)


def renew_folder(connection: Connection, collection_id: CollectionId, ttl_s: float) -> None:
    filling = (folders.c.collection_id == collection_id) & folders.c.filling
    due_ms = DatabaseMs() + int(ttl_s * 1000)
    if connection.execute(update(folders).where(filling).values(due_ms=due_ms)).rowcount == 0:
        raise folder_closed(collection_id)


def give_folder(connection: Connection, collection_id: CollectionId) -> None:
    """Part of the transaction that makes its collection."""
    mine = folders.c.collection_id == collection_id
    filling = connection.scalar(select(folders.c.filling).where(mine).with_for_update())
    if filling is None:
        return  # the collection is made of objects that lie elsewhere, or none
    if not filling:
        raise folder_closed(collection_id)
    connection.execute(delete(folders).where(mine))


def leave_folder(connection: Connection, collection_id: CollectionId) -> None:
    """Part of the transaction that forgets its collection."""
    connection.execute(delete(folders).where(folders.c.collection_id == collection_id))
    _insert(connection, collection_id, filling=False, due_in_ms=FIRST_LOOK_MS)


def take_folders(connection: Connection, quarantine_s: float, limit: int) -> list[CollectionId]:
    """What is not filled any more is closed first, and due later: see `sweeping` for why."""
    lapsed = folders.c.filling & (folders.c.due_ms <= DatabaseMs())
    due_ms = DatabaseMs() + int(quarantine_s * 1000)
    connection.execute(update(folders).where(lapsed).values(filling=False, due_ms=due_ms))
    owned = exists().where(collections.c.id == folders.c.collection_id)  # never, but everything hangs on it
    due = select(folders.c.collection_id).where(not_(folders.c.filling), folders.c.due_ms <= DatabaseMs(), ~owned)
    return [CollectionId(id) for id in connection.scalars(due.order_by(folders.c.due_ms).limit(limit))]


def rest_folders(connection: Connection, ids: Sequence[CollectionId]) -> None:
    """They were emptied, and are due again after as long again as they have been listed."""
    age_ms = DatabaseMs() - folders.c.since_ms
    for batch in batches(ids):
        empty = folders.c.collection_id.in_(batch)
        connection.execute(update(folders).where(empty).values(due_ms=DatabaseMs() + age_ms + FIRST_LOOK_MS))


def _insert(connection: Connection, collection_id: CollectionId, filling: bool, due_in_ms: int) -> None:
    times = {"since_ms": DatabaseMs(), "due_ms": DatabaseMs() + due_in_ms}
    connection.execute(insert(folders).values(collection_id=collection_id, filling=filling, **times))


def folder_closed(collection_id: CollectionId) -> MishardsError:
    message = f"folder {collection_id}/ is given up: nobody said in time that it is still being filled"
    return MishardsError(Kind.GONE, message, detail=str(collection_id))
