"""Who is in the cluster: discovery's snapshots, told once to each who listens (P16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mishards.model import Member, NodeId
from mishards.wire.membership import Membership


class FakeDiscovery:
    """Yields the snapshots that a test tells."""

    def __init__(self) -> None:
        self.snapshots: asyncio.Queue[tuple[Member, ...]] = asyncio.Queue()

    async def watch(self) -> AsyncIterator[tuple[Member, ...]]:
        while True:
            yield await self.snapshots.get()


@pytest.fixture
async def discovery() -> FakeDiscovery:
    return FakeDiscovery()


@pytest.fixture
async def membership(discovery: FakeDiscovery) -> AsyncIterator[Membership]:
    """Started on a cluster of one writer."""
    given: Any = discovery
    made = Membership(given)
    discovery.snapshots.put_nowait((member("w", "writer"),))
    await made.start()
    yield made
    await made.stop()


def member(name: str, *roles: Any, **changes: Any) -> Member:
    return Member(id=NodeId(name), roles=roles, address=f"tcp://{name}:1", **changes)


async def told(membership: Membership, discovery: FakeDiscovery, *members: Member) -> None:
    """A snapshot has arrived and been worked on."""
    discovery.snapshots.put_nowait(members)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_draining_members_serve_but_get_nothing_new(membership: Membership, discovery: FakeDiscovery) -> None:
    """They are among the members of a role only when asked for."""
    await told(membership, discovery, member("b", "reader"), member("a", "reader", state="draining"))

    assert [m.id for m in membership.of("reader")] == ["b"]
    assert [m.id for m in membership.of("reader", draining=True)] == ["a", "b"]
    assert membership.of("writer") == ()


async def test_a_heartbeat_is_no_change(membership: Membership, discovery: FakeDiscovery) -> None:
    """Plans and placements are computed anew only when something that matters has changed."""
    epoch = membership.epoch
    await told(membership, discovery, member("w", "writer"))
    assert membership.epoch == epoch

    await told(membership, discovery, member("w", "writer", incarnation="2"))
    assert membership.epoch == epoch + 1


async def test_a_listener_that_fails_keeps_the_news_from_nobody(
    membership: Membership, discovery: FakeDiscovery
) -> None:
    """The same members are not told a second time."""
    heard = []

    def fail() -> None:
        raise RuntimeError("a defect")

    membership.on_change(fail)
    membership.on_change(lambda: heard.append(membership.epoch))

    await told(membership, discovery, member("r", "reader"))
    await told(membership, discovery, member("s", "reader"))

    assert heard == [membership.epoch - 1, membership.epoch]


async def test_a_role_that_nobody_has_yet_is_waited_for(membership: Membership, discovery: FakeDiscovery) -> None:
    """A cluster's processes start side by side; the waiting is bounded."""
    assert await membership.wait_for("writer", 60)
    assert not await membership.wait_for("reader", 0.01)

    waiting = asyncio.create_task(membership.wait_for("reader", 60))
    await told(membership, discovery, member("p", "proxy"))
    assert not waiting.done()
    await told(membership, discovery, member("r", "reader"))
    assert await waiting
