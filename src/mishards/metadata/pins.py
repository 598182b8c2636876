"""Pins (P13): versions whose files stay while the collection goes on. Each public function is one unit of work.

Only the newest version can be pinned, or one that a snapshot pins already. That makes a pin readable for ever: its
transaction holds the collection's row, so a file live at its version is removed, if at all, by a later transaction, and
whoever sees the removal sees the pin. Nothing is listed for a pin: the files live at version v are those with
added <= v that are live still or were removed after v, and `is_pinned` keeps garbage collection from their records.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from mishards.errors import Kind, MishardsError
from mishards.metadata.chain import lock_collection
from mishards.metadata.database import DatabaseMs
from mishards.metadata.tables import collections, files, pins
from mishards.model import Collection, CollectionId, Delta, File, Version
from mishards.ports import Pin

PINS_MAX = 1_000  # of one collection (P15)
EXPIRY_MARGIN_S = 60  # a pin that has run out holds its files that long still: longer than a transaction may take


def create_pin(connection: Connection, pin: Pin, ttl_s: float | None, base: CollectionId | None) -> Pin:
    row = collections.c
    head = lock_collection(connection, pin.collection_id, row.version, row.last_ts, row.document)
    earlier = _find(connection, pin.id)
    if earlier is not None:
        return earlier
    if base is None:
        definition = msgspec.json.decode(head.document, type=Collection)
        pin = replace(pin, version=Version(head.version), ts=head.last_ts, definition=definition)
    else:
        known = _require(connection, base)
        if known.collection_id != pin.collection_id or known.holder or known.expires:
            raise MishardsError(Kind.CONFLICT, f"pin {base} is no snapshot of collection {pin.collection_id}")
        pin = replace(pin, version=known.version, ts=known.ts, definition=known.definition)
    pin = replace(pin, expires=ttl_s is not None)
    _check_room(connection, pin)
    insert_pin(connection, pin, ttl_s)
    return pin


def renew_pin(connection: Connection, id: CollectionId, ttl_s: float) -> None:
    mine = (pins.c.id == id) & pins.c.until_ms.is_not(None) & (pins.c.until_ms > DatabaseMs())
    if connection.execute(update(pins).where(mine).values(until_ms=_until_ms(ttl_s))).rowcount == 0:
        raise pin_gone(id)


def drop_pin(connection: Connection, id: CollectionId) -> None:
    """Under the lock of whoever copies it, so that its files are pinned by one of the two at any moment."""
    collection_id = connection.scalar(select(pins.c.collection_id).where(pins.c.id == id))
    connection.execute(select(collections.c.id).where(collections.c.id == collection_id).with_for_update())
    connection.execute(delete(pins).where(pins.c.id == id))


def read_pins(connection: Connection, collection_id: CollectionId | None) -> list[Pin]:
    """Those in force, the oldest first."""
    wanted = _in_force() if collection_id is None else and_(_in_force(), pins.c.collection_id == collection_id)
    rows = connection.execute(select(pins.c.document).where(wanted).order_by(pins.c.id))
    return [msgspec.json.decode(row.document, type=Pin) for row in rows]


def pinned(connection: Connection, id: CollectionId) -> tuple[Pin, Delta]:
    """The state at the pin's version, as a delta from nothing."""
    pin = _require(connection, id)
    rows = connection.execute(
        select(files.c.document)
        .where(files.c.collection_id == pin.collection_id, files.c.added <= pin.version, _live_after(pin.version))
        .order_by(files.c.id)
    )
    listed = tuple(msgspec.json.decode(row.document, type=File) for row in rows)
    return pin, Delta(
        collection_id=pin.collection_id, after=Version(0), version=pin.version, ts=pin.ts, head="", added=listed
    )


def is_pinned() -> ColumnElement[bool]:
    """Whether a pin needs the removed file of a row of `files`."""
    inside = (pins.c.version >= files.c.added) & (pins.c.version < files.c.removed)
    return exists().where(pins.c.collection_id == files.c.collection_id, inside, _holds())


def has_pins() -> ColumnElement[bool]:
    """Whether a pin needs files of a row of `collections`."""
    return exists().where(pins.c.collection_id == collections.c.id, _holds())


def own_parts(file: File) -> File:
    """The file without objects that belong to another collection, which alone may delete them (P1: by their names)."""
    own = f"{file.collection_id}/"
    return replace(file, parts=tuple(part for part in file.parts if part.path.startswith(own) or not part.path))


def release_borrowed(connection: Connection, collection_id: CollectionId) -> None:
    """Drop the pins that keep what the collection borrows, once no record of it names an object of another one."""
    holding = pins.c.holder == collection_id
    if connection.scalar(select(func.count()).where(holding)) == 0:
        return
    for document in connection.scalars(select(files.c.document).where(files.c.collection_id == collection_id)):
        file = msgspec.json.decode(document, type=File)
        if own_parts(file).parts != file.parts:
            return
    connection.execute(delete(pins).where(holding))


def keep_borrowed(connection: Connection, pin: Pin) -> None:
    """Insert the pin of a collection that borrows another one's objects. CONFLICT unless a snapshot keeps them now."""
    connection.execute(select(collections.c.id).where(collections.c.id == pin.collection_id).with_for_update())
    same = (pins.c.collection_id == pin.collection_id) & (pins.c.version == pin.version)
    if connection.scalar(select(func.count()).where(same, _is_snapshot())) == 0:
        raise MishardsError(Kind.CONFLICT, f"no snapshot keeps version {pin.version} of collection {pin.collection_id}")
    insert_pin(connection, pin)


def forget_holder(connection: Connection, collection_id: CollectionId) -> None:
    """Drop the pins that keep what a forgotten collection borrowed."""
    connection.execute(delete(pins).where(pins.c.holder == collection_id))


def drop_snapshots(connection: Connection, collection_id: CollectionId) -> None:
    """Those that people named go with their collection, as in Milvus; backups and borrowers keep theirs."""
    connection.execute(delete(pins).where(pins.c.collection_id == collection_id, _is_snapshot()))


def insert_pin(connection: Connection, pin: Pin, ttl_s: float | None = None) -> None:
    taken = (pins.c.collection_id == pin.collection_id) & (pins.c.name == pin.name)
    if connection.scalar(select(pins.c.id).where(taken)) is not None:
        raise MishardsError(Kind.UNEXPECTED, f"snapshot {pin.name} already exists in collection {pin.definition.name}")
    connection.execute(
        insert(pins).values(
            id=pin.id,
            collection_id=pin.collection_id,
            name=pin.name,
            version=pin.version,
            holder=pin.holder,
            until_ms=None if ttl_s is None else _until_ms(ttl_s),
            document=msgspec.json.encode(pin).decode(),
        )
    )


def _check_room(connection: Connection, pin: Pin) -> None:
    count = connection.scalar(select(func.count()).where(pins.c.collection_id == pin.collection_id, _in_force()))
    if count is not None and count >= PINS_MAX:
        message = f"collection {pin.definition.name} has {count} snapshots and pins, the limit is {PINS_MAX}"
        raise MishardsError(Kind.CAPACITY_EXCEEDED, message)


def _find(connection: Connection, id: CollectionId) -> Pin | None:
    document = connection.scalar(select(pins.c.document).where(pins.c.id == id, _in_force()))
    return None if document is None else msgspec.json.decode(document, type=Pin)


def _require(connection: Connection, id: CollectionId) -> Pin:
    found = _find(connection, id)
    if found is None:
        raise pin_gone(id)
    return found


def pin_gone(id: CollectionId) -> MishardsError:
    return MishardsError(Kind.GONE, f"pin {id} does not exist any more", detail=str(id))


def _is_snapshot() -> ColumnElement[bool]:
    return (pins.c.holder == 0) & pins.c.until_ms.is_(None)


def _in_force() -> ColumnElement[bool]:
    return or_(pins.c.until_ms.is_(None), pins.c.until_ms > DatabaseMs())


def _holds() -> ColumnElement[bool]:
    """In force, or ran out so short a time ago that a transaction may still renew or copy it."""
    return or_(pins.c.until_ms.is_(None), pins.c.until_ms > DatabaseMs() - EXPIRY_MARGIN_S * 1000)


def _live_after(version: Version) -> ColumnElement[bool]:
    return or_(files.c.removed == 0, files.c.removed > version)


def _until_ms(ttl_s: float) -> ColumnElement[int]:
    return DatabaseMs() + int(ttl_s * 1000)
