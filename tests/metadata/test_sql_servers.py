"""The metadata service on real MariaDB and PostgreSQL servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opening import PROCESSES, differences, open_at_once

from mishards.clock import SystemClock
from mishards.metadata.store import SqlStore, open_store
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
    assert len(open_at_once(server.new_database())) == PROCESSES


async def test_the_migrations_make_the_tables_of_the_program(store: SqlStore, url: str) -> None:
    """A migrated database has exactly the tables, columns and indexes that `tables.py` declares."""
    assert differences(url) == []
