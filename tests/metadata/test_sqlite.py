"""The metadata service on SQLite: the contract, and what is special about opening a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opening import PROCESSES, differences, open_at_once
from sqlalchemy import create_engine, text

from mishards.clock import SystemClock
from mishards.errors import Kind, MishardsError, SetupError
from mishards.metadata.store import SqlStore, open_store
from mishards.testing.metadata_records import a_collection, refused
from mishards.testing.metadata_suite import MetadataSuite


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder}/data/metadata.db"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = open_store(url_in(tmp_path), SystemClock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(store: SqlStore, tmp_path: Path) -> AsyncIterator[SqlStore]:
    other = open_store(url_in(tmp_path), SystemClock())
    await other.open()
    yield other
    await other.close()


class TestSqlite(MetadataSuite):
    """SQLite in one file, two clients with connections of their own."""


async def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    """A new client of the same file finds the records and takes later ids."""
    first = open_store(url_in(tmp_path), SystemClock())
    await first.open()
    await first.create_collection(a_collection())
    id = await first.take_ids(5)
    await first.close()

    second = open_store(url_in(tmp_path), SystemClock())
    await second.open()

    assert [head.collection_id for head in await second.heads()] == [1]
    assert await second.take_ids(1) >= id + 5
    await second.close()


async def test_clients_of_one_process_may_open_at_once(tmp_path: Path) -> None:
    """Several clients open one new file at the same moment, and all work."""
    stores = [open_store(url_in(tmp_path), SystemClock()) for _ in range(4)]

    await asyncio.gather(*(store.open() for store in stores))

    assert len(set(await asyncio.gather(*(store.take_ids(1) for store in stores)))) == 4
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.process
def test_processes_may_open_at_once(tmp_path: Path) -> None:
    """Several processes open one new file at the same moment, and all work."""
    assert len(open_at_once(url_in(tmp_path))) == PROCESSES


async def test_the_migrations_make_the_tables_of_the_program(store: SqlStore, tmp_path: Path) -> None:
    """A migrated database has exactly the tables, columns and indexes that `tables.py` declares."""
    assert differences(url_in(tmp_path)) == []


async def test_newer_data_is_refused(store: SqlStore, tmp_path: Path) -> None:
    """A database that a newer program has migrated is not touched; the error names both revisions."""
    engine = create_engine(url_in(tmp_path))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(SetupError, match=r"schema revision 9999, this program knows up to 0003"):
        await store.open()


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "sqlite:///:memory:", "oracle://host/db", "mysql+mysqldb://host/db"]
)
def test_a_url_of_no_use_is_refused(url: str) -> None:
    """A URL that is none, names no file, or whose driver is not installed is a set-up error of one line."""
    with pytest.raises(SetupError) as caught:
        open_store(url, SystemClock())

    assert "\n" not in str(caught.value)


async def test_a_broken_connection_is_reported_as_such(tmp_path: Path) -> None:
    """A database that cannot be reached, and a closed client, give METADATA_UNAVAILABLE, which says where."""
    (tmp_path / "data" / "metadata.db").mkdir(parents=True)
    store = open_store(url_in(tmp_path), SystemClock())

    error = await refused(Kind.METADATA_UNAVAILABLE, store.open())
    await store.close()
    await refused(Kind.METADATA_UNAVAILABLE, store.heads())

    assert "metadata.db does not answer" in error.message
    assert isinstance(error, MishardsError) and error.retryable
