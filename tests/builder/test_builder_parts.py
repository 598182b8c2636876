"""The small parts of the builder: its threads, its claims, its patience."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mishards.builder.attempt import all_of
from mishards.builder.claims import Claims
from mishards.builder.pool import Pool
from mishards.builder.rests import REMEMBERED_S, REST_S_MAX, Rests
from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.metadata.store import SqlStore, open_store
from mishards.model import NodeId


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = open_store(f"sqlite:///{tmp_path}/metadata.db", FakeClock())
    await store.open()
    yield store
    await store.close()


async def test_pool_computes() -> None:
    """A result or an error comes back from a thread that is not the caller's."""
    pool = Pool(1)

    assert await pool.run(threading.get_ident) != threading.get_ident()
    assert await pool.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)


async def test_pool_is_bounded() -> None:
    """No more computations than threads run at once."""
    pool, running, most, lock = Pool(2), 0, 0, threading.Lock()
    together = threading.Barrier(2)

    def compute() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(timeout=20)
        with lock:
            running -= 1

    await asyncio.gather(*(pool.run(compute) for _ in range(8)))

    assert most == 2


async def test_pool_abandons() -> None:
    """A cancelled computation is waited for no longer, and its room is free."""
    pool, begun, end = Pool(1), threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        end.wait(timeout=20)

    task = asyncio.create_task(pool.run(compute))
    await asyncio.to_thread(begun.wait)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pool.run(lambda: "next") == "next"
    end.set()


async def test_all_of() -> None:
    """The results come in order; the first failure is raised as it is, and the others are cancelled."""

    async def give(value: int) -> int:
        return value

    async def fail() -> int:
        raise MishardsError(Kind.GONE, "gone")

    assert await all_of(give(value) for value in range(3)) == [0, 1, 2]
    endless = asyncio.Event()
    with pytest.raises(MishardsError, match="gone"):
        await all_of([endless.wait(), fail()])


async def test_claim(store: SqlStore) -> None:
    """A claim excludes other nodes while it is held, and is free afterwards."""
    mine = Claims(store, NodeId("b1"), FakeClock(1), ttl_s=30.0)
    other = Claims(store, NodeId("b2"), FakeClock(2), ttl_s=30.0)

    async with mine.hold("task/1") as claim:
        (lease,) = await store.leases("task/")
        assert (lease.name, lease.owner, lease.nonce) == (claim.name, "b1", claim.nonce)
        with pytest.raises(MishardsError, match="is held by node b1"):
            async with other.hold("task/1"):
                raise AssertionError("claimed twice")

    async with other.hold("task/1") as second:
        assert second.nonce != claim.nonce


async def test_claim_is_renewed(store: SqlStore) -> None:
    """A claim that is held lives longer than its time to live."""
    renewed = asyncio.Event()

    class Watched(SqlStore):
        async def renew(self, leases_held, ttl_s):  # type: ignore[no-untyped-def]
            held = await super().renew(leases_held, ttl_s)
            if held == {"task/1"}:
                renewed.set()
            return held

    watched = Watched.__new__(Watched)
    watched.__dict__.update(store.__dict__)

    async with Claims(watched, NodeId("b1"), FakeClock(), ttl_s=0.3).hold("task/1"):
        await asyncio.wait_for(renewed.wait(), timeout=20)


async def test_claim_of_a_failure(store: SqlStore) -> None:
    """A claim is given back when the work fails."""
    claims = Claims(store, NodeId("b1"), FakeClock(), ttl_s=30.0)

    with pytest.raises(ValueError, match="bad luck"):
        async with claims.hold("task/1"):
            raise ValueError("bad luck")

    assert await store.leases("task/") == []


def test_rests_grow() -> None:
    """A task rests the longer the more often it failed in a row, up to a limit."""
    clock = FakeClock()
    rests = Rests(clock, first_s=1.0)

    lengths = [rests.add("task") for _ in range(30)]

    assert 1.0 <= lengths[0] <= 2.0
    assert 2.0 <= lengths[1] <= 4.0
    assert max(lengths) <= REST_S_MAX
    rests.end("task")
    assert rests.add("task") <= 2.0


def test_rests_end() -> None:
    """A task rests for a while only, and what did not fail for long is forgotten."""
    clock = FakeClock()
    rests = Rests(clock, first_s=1.0)
    rests.add("task")

    assert rests.resting() == {"task"}
    clock.advance(2.0)
    assert rests.resting() == set()

    rests.add("task")
    clock.advance(4.0 + REMEMBERED_S)
    assert rests.resting() == set()
    assert rests.add("task") <= 2.0
