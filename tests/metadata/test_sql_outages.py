"""SQL servers that are killed, hang, and lose what they would have answered (P14): nothing stays broken, and no outcome
is guessed."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator

import pytest
from relay import Relay, relay_to
from sqlalchemy import Connection, create_engine, select, text, update

from mishards.clock import SystemClock
from mishards.errors import Kind
from mishards.metadata.database import make_engine, parse_url
from mishards.metadata.lane import Lane
from mishards.metadata.store import SqlStore, open_store
from mishards.metadata.tables import collections
from mishards.model import CollectionId, Version
from mishards.ports import UNDONE
from mishards.testing.metadata_records import a_collection, a_commit, a_file, refused
from services import SqlServer

BOOKS = CollectionId(1)
PATIENCE_S = 15.0  # far more than any call may take during an outage; longer, and it hangs


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    """Open, with one collection and every connection in use once."""
    store = open_store(url, SystemClock())
    await store.open()
    await store.create_collection(a_collection())
    await asyncio.gather(*(store.take_ids(1) for _ in range(8)), *(store.heads() for _ in range(8)))
    yield store
    await store.close()


@pytest.fixture
async def relay(server: SqlServer) -> AsyncIterator[Relay]:
    async with relay_to(server.port) as relay:
        yield relay


@pytest.fixture
async def relayed(url: str, server: SqlServer, relay: Relay, store: SqlStore) -> AsyncIterator[SqlStore]:
    """Another client, through the relay."""
    relayed = open_store(url.replace(f":{server.port}/", f":{relay.port}/"), SystemClock())
    await relayed.open()
    yield relayed
    await relayed.close()


async def test_a_restart_between_calls_is_not_noticed(server: SqlServer, store: SqlStore) -> None:
    """The connections of before are broken; every call after the restart succeeds all the same."""
    server.kill()
    server.start()

    firsts = await asyncio.gather(*(store.take_ids(1) for _ in range(8)))
    heads = await asyncio.gather(*(store.heads() for _ in range(8)))

    assert len(set(firsts)) == 8
    assert all(len(each) == 1 for each in heads)


async def test_a_killed_server_is_reported_and_found_again(server: SqlServer, store: SqlStore) -> None:
    """While it is down every call fails as METADATA_UNAVAILABLE; when it is back the same client works."""
    server.kill()
    async with asyncio.timeout(PATIENCE_S):
        read = await refused(Kind.METADATA_UNAVAILABLE, store.heads())
        await refused(Kind.METADATA_UNAVAILABLE, store.commit(a_commit("u1", a_file(1))))
    server.start()

    assert read.retryable and "does not answer" in read.message
    assert await store.find_commit(BOOKS, "u1") is None
    assert (await store.commit(a_commit("u1", a_file(1)))).version == 1


async def test_a_server_that_hangs_holds_nobody(server: SqlServer, store: SqlStore) -> None:
    """Whatever many callers ask of a server that has stopped fails; when it goes on the same client works."""
    server.pause()
    try:
        async with asyncio.timeout(PATIENCE_S):
            reads = [refused(Kind.METADATA_UNAVAILABLE, store.heads()) for _ in range(12)]
            writes = [
                refused(Kind.METADATA_UNAVAILABLE, store.commit(a_commit(f"u{n}", a_file(n)))) for n in range(1, 13)
            ]
            await asyncio.gather(*reads, *writes)
            await refused(Kind.METADATA_UNAVAILABLE, store.heads())  # the threads are free again
    finally:
        server.resume()

    found = [await store.find_commit(BOOKS, f"u{n}") for n in range(1, 13)]
    again = [await store.commit(a_commit(f"u{n}", a_file(n))) for n in range(1, 13)]
    assert all(earlier in (None, later) for earlier, later in zip(found, again, strict=True))
    assert len(await store.commits(BOOKS, Version(0))) == 12


async def test_a_server_that_became_a_replica_is_left(postgresql: SqlServer) -> None:
    """A server that writes no more, as after a take-over by another one, counts as lost until one does."""
    store = open_store(postgresql.new_database(), SystemClock())
    await store.open()
    engine = create_engine(postgresql.driver_url(), isolation_level="AUTOCOMMIT")

    async def make_read_only(on: str) -> None:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER SYSTEM SET default_transaction_read_only = {on}"))
            connection.execute(text("SELECT pg_reload_conf()"))
            while connection.scalar(text("SHOW default_transaction_read_only")) != on:  # noqa: ASYNC110 - its moment
                await asyncio.sleep(0.01)

    try:
        await make_read_only("on")
        error = await refused(Kind.METADATA_UNAVAILABLE, store.take_ids(1))
    finally:
        await make_read_only("off")

    assert error.detail == UNDONE
    assert await store.take_ids(1)
    engine.dispose()
    await store.close()


async def test_a_connection_lost_within_a_transaction_is_not_noticed(relay: Relay, relayed: SqlStore) -> None:
    """Before COMMIT nothing has happened, so the commit runs again on a fresh connection."""
    relay.cut_at = re.compile(b"INSERT")

    commit = await relayed.commit(a_commit("u1", a_file(1)))

    assert relay.cuts == 1
    assert await relayed.commits(BOOKS, Version(0)) == [commit]


@pytest.mark.parametrize("after", [True, False])
async def test_a_lost_answer_to_commit_is_told_by_the_uuid(relay: Relay, relayed: SqlStore, after: bool) -> None:
    """The caller is not told a guess; `find_commit` says whether it happened, and to repeat it is safe either way."""
    relay.cut_at, relay.after = re.compile(b"COMMIT(?!TED)"), after

    await refused(Kind.METADATA_UNAVAILABLE, relayed.commit(a_commit("u1", a_file(1))))
    found = await relayed.find_commit(BOOKS, "u1")
    again = await relayed.commit(a_commit("u1", a_file(1)))

    assert relay.cuts == 1
    assert found == (again if after else None)
    assert await relayed.commits(BOOKS, Version(0)) == [again]


async def test_a_deadlock_is_nobodys_failure(store: SqlStore, url: str) -> None:
    """Of two transactions that wait for each other the database ends one; it runs again, and both take effect."""
    await store.create_collection(a_collection(2, "films"))
    lane = Lane(parse_url(url), writing=True, clock=SystemClock())
    meeting = threading.Barrier(2)
    runs: list[int] = []

    def raise_ddl(connection: Connection, first: int, second: int) -> None:
        runs.append(first)
        for number, id in enumerate((first, second)):
            connection.execute(update(collections).where(collections.c.id == id).values(ddl=collections.c.ddl + 1))
            if number == 0 and runs.count(first) == 1:
                meeting.wait(10)

    await asyncio.gather(lane.run(lambda c: raise_ddl(c, 1, 2)), lane.run(lambda c: raise_ddl(c, 2, 1)))

    assert len(runs) > 2
    assert [head.ddl for head in await store.heads()] == [3, 3]
    await lane.close()


async def test_a_process_that_stops_in_a_transaction_blocks_others_for_seconds(store: SqlStore, url: str) -> None:
    """The server ends the session that holds a collection's lock and says nothing; the commits that wait go on."""
    engine = make_engine(parse_url(url), writing=True, threads=1)
    connection = engine.connect()
    connection.execute(select(collections.c.id).with_for_update())

    async with asyncio.timeout(PATIENCE_S):
        commit = await store.commit(a_commit("u1", a_file(1)))

    assert commit.version == 1
    connection.invalidate()
    connection.close()
    engine.dispose()
