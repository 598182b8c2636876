"""Collections and their names. Each public function is one unit of work in a transaction.

A name or an alias is one row of `names`, whose primary key (database, name) lets nobody claim it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, insert, not_, select, update

from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.folders import leave_folder
from mishards.metadata.pins import drop_snapshots, forget_holder, has_pins
from mishards.metadata.requests import DEFINITION, record_requests
from mishards.metadata.tables import DROPPED, LIVE, collections, commits, files, leases, names, payloads
from mishards.model import Collection, CollectionId, Version
from mishards.ports import Head


def create_collection(connection: Connection, collection: Collection, request: str = "") -> None:
    _record(connection, request, collection.id)
    for name in names_of(collection):
        _claim(connection, collection.id, name)
    first_ts = max(collection.created_ts, newest_ts(connection, collection))
    start = {"state": LIVE, "ddl": 1, "version": 0, "head": "", "last_ts": first_ts, "forgotten": 0}
    connection.execute(insert(collections).values(id=collection.id, **start, **_columns(collection)))


def newest_ts(connection: Connection, collection: Collection) -> int:
    """The newest hybrid timestamp of those of its name, dropped ones included. What is written to a new one is to be
    newer than all that the name stood for, whatever the clocks of writers say: so it is missed where the old one is
    all that is known (I8)."""
    its_name = (collections.c.database == collection.database) & (collections.c.name == collection.name)
    return connection.scalar(select(func.max(collections.c.last_ts)).where(its_name)) or 0


def replace_collections(
    connection: Connection, pairs: Sequence[tuple[Collection, Collection]], request: str = ""
) -> None:
    """The last of the pairs is the collection that `request` names."""
    _record(connection, request, pairs[-1][0].id)
    for old, _ in sorted(pairs, key=lambda pair: pair[0].id):  # one order of locks for everybody
        _lock(connection, old)
    for old, new in pairs:
        for name in names_of(old) - names_of(new):
            _free(connection, old.id, name)
    for old, new in pairs:
        for name in names_of(new) - names_of(old):
            _claim(connection, new.id, name)
        connection.execute(
            update(collections).where(collections.c.id == old.id).values(ddl=collections.c.ddl + 1, **_columns(new))
        )
    if len(pairs) > 1:  # a name that moves on: as for new collections
        its_holders = collections.c.id.in_([old.id for old, _ in pairs])
        newest = connection.scalar(select(func.max(collections.c.last_ts)).where(its_holders))
        connection.execute(update(collections).where(its_holders).values(last_ts=newest))


def drop_collection(connection: Connection, collection_id: CollectionId, request: str = "") -> None:
    _record(connection, request, collection_id)
    connection.execute(
        update(collections)
        .where(collections.c.id == collection_id, collections.c.state == LIVE)
        .values(state=DROPPED, dropped_ms=DatabaseMs())
    )
    connection.execute(delete(names).where(names.c.collection_id == collection_id))
    drop_snapshots(connection, collection_id)


def heads(connection: Connection) -> list[Head]:
    rows = connection.execute(
        select(collections.c.id, collections.c.version, collections.c.ddl, collections.c.head).where(
            collections.c.state == LIVE
        )
    )
    return [Head(CollectionId(row.id), Version(row.version), row.ddl, row.head) for row in rows]


def read_collections(connection: Connection, ids: Sequence[CollectionId]) -> list[tuple[Collection, int]]:
    found = []
    for batch in batches(ids):
        rows = connection.execute(
            select(collections.c.document, collections.c.ddl)
            .where(collections.c.id.in_(batch), collections.c.state == LIVE)
            .order_by(collections.c.id)
        )
        found += [(msgspec.json.decode(row.document, type=Collection), row.ddl) for row in rows]
    return found


def dropped_collections(connection: Connection, older_than_s: float) -> list[CollectionId]:
    dropped_before = collections.c.dropped_ms <= DatabaseMs() - int(older_than_s * 1000)
    rows = connection.scalars(
        select(collections.c.id).where(collections.c.state == DROPPED, dropped_before, not_(has_pins()))
    )
    return [CollectionId(id) for id in rows]


def forget_collection(connection: Connection, collection_id: CollectionId) -> None:
    state = connection.scalar(select(collections.c.state).where(collections.c.id == collection_id).with_for_update())
    if state == LIVE:
        raise MishardsError(Kind.CONFLICT, f"collection {collection_id} is live: only a dropped one can be forgotten")
    its_files = select(files.c.id).where(files.c.collection_id == collection_id)
    connection.execute(delete(payloads).where(payloads.c.file_id.in_(its_files)))
    connection.execute(delete(files).where(files.c.collection_id == collection_id))
    connection.execute(delete(commits).where(commits.c.collection_id == collection_id))
    for prefix in (f"shard/{collection_id}/", f"task/{collection_id}/"):
        connection.execute(delete(leases).where(leases.c.name.startswith(prefix, autoescape=True)))
    forget_holder(connection, collection_id)
    if state is not None:
        leave_folder(connection, collection_id)
    connection.execute(delete(collections).where(collections.c.id == collection_id))


class Name(NamedTuple):
    database: str
    name: str
    alias: bool


def names_of(collection: Collection) -> set[Name]:
    aliases = {Name(collection.database, alias, True) for alias in collection.aliases}
    return aliases | {Name(collection.database, collection.name, False)}


def _columns(collection: Collection) -> dict[str, Any]:
    return {
        "database": collection.database,
        "name": collection.name,
        "updated_ts": collection.updated_ts,
        "document": msgspec.json.encode(collection).decode(),
    }


def _record(connection: Connection, request: str, collection_id: CollectionId) -> None:
    record_requests(connection, [request] if request else [], collection_id, DEFINITION)


def _lock(connection: Connection, old: Collection) -> None:
    """CONFLICT unless the collection is as `old`."""
    live = (collections.c.id == old.id) & (collections.c.state == LIVE)
    updated_ts = connection.scalar(select(collections.c.updated_ts).where(live).with_for_update())
    if updated_ts is None:
        raise collection_not_found(old.name, old.database)
    if updated_ts != old.updated_ts:
        message = f"collection {old.name} has changed: schema timestamp {updated_ts}, expected {old.updated_ts}"
        raise MishardsError(Kind.CONFLICT, message)


def _free(connection: Connection, collection_id: CollectionId, name: Name) -> None:
    connection.execute(
        delete(names).where(
            names.c.database == name.database, names.c.name == name.name, names.c.collection_id == collection_id
        )
    )


def _claim(connection: Connection, collection_id: CollectionId, name: Name) -> None:
    holder = connection.execute(
        select(names.c.alias, collections.c.name)
        .join(collections, collections.c.id == names.c.collection_id)
        .where(names.c.database == name.database, names.c.name == name.name)
    ).one_or_none()
    if holder is not None:
        raise name_taken(name, holder.alias, holder.name)
    connection.execute(insert(names).values(collection_id=collection_id, **name._asdict()))


def name_taken(name: Name, held_as_alias: bool, holder: str) -> MishardsError:
    where = f"[database={name.database}][alias={name.name}]"
    if not name.alias:
        message = f"duplicate name: {name.name} is already used in database {name.database}"
        return MishardsError(Kind.UNEXPECTED, message)
    if held_as_alias:
        message = f"{name.name} is alias to another collection: {holder}: alias already exist{where}"
        return MishardsError(Kind.ALIAS_EXISTS, message)
    return MishardsError(Kind.ALIAS_NAME_CONFLICT, f"alias and collection name conflict{where}")
