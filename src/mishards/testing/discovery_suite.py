"""What every discovery back end must do. Subclass `DiscoverySuite` in a test module and write `connect`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from mishards.model import Member, NodeId
from mishards.ports import Discovery

WAIT_S = 5.0
Snapshot = tuple[Member, ...]


class DiscoverySuite:
    """The contract of `ports.Discovery`, of one process that watches what it registers itself."""

    def connect(self) -> Discovery:
        """A client of an empty registry, with heartbeats and polls of a few milliseconds."""
        raise NotImplementedError

    async def test_first_snapshot_comes_at_once(self) -> None:
        """Without members the first snapshot is empty; one who starts to watch later sees who is there."""
        async with self._connected() as discovery:
            assert await _until(discovery, lambda _: True) == ()
            await discovery.register(member("a"))
            assert _ids(await _until(discovery, lambda _: True)) == ["a"]

    async def test_snapshots_are_whole(self) -> None:
        """A member that joins is added to those that were there, with everything that it announced."""
        async with self._connected() as discovery:
            await discovery.register(member("a"))
            await discovery.register(member("b"))
            live = await _until(discovery, lambda live: len(live) == 2)

            assert [(m.id, m.roles, m.address, m.state) for m in live] == [
                (m.id, m.roles, m.address, m.state) for m in (member("a"), member("b"))
            ]

    async def test_update_is_seen(self) -> None:
        """Registering again replaces the record: a node that drains says so."""
        async with self._connected() as discovery:
            await discovery.register(member("a"))
            await discovery.register(member("a", state="draining"))

            live = await _until(discovery, lambda live: bool(live) and live[0].state == "draining")
            assert _ids(live) == ["a"]

    async def test_deregistered_member_is_gone(self) -> None:
        """After deregistering the snapshots lack the node; doing it twice is no error."""
        async with self._connected() as discovery:
            await discovery.register(member("a"))
            await discovery.register(member("b"))
            await discovery.deregister(NodeId("a"))
            await discovery.deregister(NodeId("a"))

            assert _ids(await _until(discovery, lambda live: len(live) == 1)) == ["b"]

    async def test_changes_reach_a_running_watch(self) -> None:
        """One watch sees a member come and go; every watch sees the same."""
        async with self._connected() as discovery:
            first, second = discovery.watch(), discovery.watch()
            assert await _next(first) == await _next(second) == ()
            await discovery.register(member("a"))
            assert _ids(await _next(first)) == _ids(await _next(second)) == ["a"]
            await discovery.deregister(NodeId("a"))
            assert await _next(first) == await _next(second) == ()

    async def test_closing_ends_the_watch(self) -> None:
        """Closing ends every watch, and may be done twice."""
        discovery = self.connect()
        watch = discovery.watch()
        await _next(watch)
        await discovery.close()
        await discovery.close()

        async with asyncio.timeout(WAIT_S):
            assert [snapshot async for snapshot in watch] == []

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Discovery]:
        discovery = self.connect()
        try:
            yield discovery
        finally:
            await discovery.close()


def member(name: str, state: Literal["ready", "draining"] = "ready") -> Member:
    return Member(id=NodeId(name), roles=("reader",), address=f"tcp://{name}:7000", state=state, incarnation="1")


async def _next(watch: AsyncIterator[Snapshot]) -> Snapshot:
    async with asyncio.timeout(WAIT_S):
        return await anext(watch)


async def _until(discovery: Discovery, wanted: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(WAIT_S):
        async for snapshot in discovery.watch():
            if wanted(snapshot):
                return snapshot
    raise AssertionError("the watch ended before the expected snapshot")


def _ids(live: Snapshot) -> list[str]:
    return [m.id for m in live]
