"""Empty databases on real SQL servers, and a mirror. This folder is importable (`from relay import relay_to`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest
from mirrored import BOOKS, NEVER_S, Door
from sqlalchemy import create_engine

from mishards.clock import FakeClock, SystemClock
from mishards.metadata import migrate
from mishards.metadata.database import parse_url
from mishards.metadata.mirror import Mirror
from mishards.metadata.store import open_store
from mishards.metadata.tables import metadata
from mishards.model import FileKind
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, a_file
from services import SqlServer


@pytest.fixture(scope="module", params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> SqlServer:
    found: SqlServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def database(server: SqlServer) -> str:
    """The URL of a database that the tests of a module share."""
    url = server.new_database()
    migrate.upgrade(parse_url(url))
    return url


@pytest.fixture
def url(database: str) -> Iterator[str]:
    """The URL of that database, emptied after the test."""
    yield database
    engine = create_engine(parse_url(database))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    engine.dispose()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A way to an empty SQLite database."""
    store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
    await store.open()
    yield Door(store)
    await store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def mirror(door: Door, clock: FakeClock) -> AsyncIterator[Mirror]:
    """A started mirror of a database with the collection `books` at version 1: files 1 (rows) and 2 (a segment)."""
    await door.store.create_collection(a_collection(BOOKS, "books", aliases=("novels",)))
    await door.store.commit(a_commit("u1", a_file(1), a_file(2, FileKind.SEGMENT)))
    mirror = Mirror(cast(MetadataStore, door), clock, poll_s=NEVER_S, keep_removed_s=120.0)
    await mirror.start()
    door.calls.clear()
    yield mirror
    await mirror.stop()
