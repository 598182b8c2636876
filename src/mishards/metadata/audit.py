"""What `mishards metadata check` and `export` read of the tables themselves. Each public function is a unit of work."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, exists, func, select

from mishards.metadata.tables import LIVE, collections, commits, files, metadata, names, payloads, pins
from mishards.model import Collection

Write = Callable[[str], object]


def dangling(connection: Connection) -> list[str]:
    """Every record that refers to what is not there, or to what knows nothing of it."""
    return [*_wrong_names(connection), *_orphans(connection)]


def dump(connection: Connection, write: Write) -> int:
    """Every row of every table as a line of JSON, bytes in base64; how many. One consistent state."""
    count = 0
    for table in metadata.sorted_tables:
        for row in connection.execute(select(table).execution_options(yield_per=1000)):
            values = {str(name): _plain(value) for name, value in row._mapping.items()}
            write(msgspec.json.encode({"table": str(table.name), "row": values}).decode() + "\n")
            count += 1
    return count


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _wrong_names(connection: Connection) -> Iterator[str]:
    listed = {
        (row.database, row.name): (row.collection_id, bool(row.alias))
        for row in connection.execute(select(names.c.database, names.c.name, names.c.collection_id, names.c.alias))
    }
    wanted = {}
    for document in connection.scalars(select(collections.c.document).where(collections.c.state == LIVE)):
        collection = msgspec.json.decode(document, type=Collection)
        wanted[collection.database, collection.name] = (collection.id, False)
        wanted |= {(collection.database, alias): (collection.id, True) for alias in collection.aliases}
    for database, name in sorted(listed.keys() | wanted.keys()):
        if listed.get((database, name)) != wanted.get((database, name)):
            holder, owner = listed.get((database, name)), wanted.get((database, name))
            says = f"the list of names says {_belongs(holder)}, the definitions say {_belongs(owner)}"
            yield f"name {name} in database {database}: {says}"


def _belongs(to: tuple[int, bool] | None) -> str:
    return "nobody" if to is None else f"{'alias of ' if to[1] else ''}collection {to[0]}"


def _orphans(connection: Connection) -> Iterator[str]:
    known: list[tuple[str, Column[Any], Column[Any]]] = [
        ("files of no collection", files.c.collection_id, collections.c.id),
        ("commits of no collection", commits.c.collection_id, collections.c.id),
        ("pins of no collection", pins.c.collection_id, collections.c.id),
        ("payloads of no file", payloads.c.file_id, files.c.id),
    ]
    for what, reference, key in known:
        missing: ColumnElement[bool] = ~exists().where(key == reference)
        count = connection.scalar(select(func.count()).select_from(reference.table).where(missing))
        if count:
            yield f"{count} {what}"
