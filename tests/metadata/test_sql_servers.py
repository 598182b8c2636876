"""The metadata service on real MariaDB and PostgreSQL servers."""

from __future__ import annotations

import multiprocessing
from collections.abc import AsyncIterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from opening import take_one
from sqlalchemy import create_engine

from mishards.clock import SystemClock
from mishards.metadata.database import parse_url
from mishards.metadata.store import SqlStore, open_store
from mishards.metadata.tables import metadata
from mishards.testing.metadata_suite import MetadataSuite
from services import SqlServer


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    store = open_store(url, SystemClock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(store: SqlStore, url: str) -> AsyncIterator[SqlStore]:
    other = open_store(url, SystemClock())
    await other.open()
    yield other
    await other.close()


class TestSqlServers(MetadataSuite):
    """The same contract as on SQLite."""


@pytest.mark.process
def test_processes_may_open_an_empty_database_at_once(server: SqlServer) -> None:
    """Several processes meet on an empty database; it is migrated once, and all work."""
    url = server.new_database()
    spawn = multiprocessing.get_context("spawn")
    ids: multiprocessing.Queue[int] = spawn.Queue()
    processes = [spawn.Process(target=take_one, args=(url, ids)) for _ in range(3)]
    for process in processes:
        process.start()

    taken = {ids.get(timeout=60) for _ in processes}

    for process in processes:
        process.join()
    assert len(taken) == 3


async def test_the_migrations_make_the_tables_of_the_program(store: SqlStore, url: str) -> None:
    """A migrated database has exactly the tables, columns and indexes that `tables.py` declares."""
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
