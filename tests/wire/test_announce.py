"""News to the other processes: a hint that nobody waits for (P9)."""

from __future__ import annotations

import asyncio
from typing import Any

from mishards.errors import Kind, MishardsError
from mishards.model import Member, NodeId
from mishards.wire.announce import IN_FLIGHT_MAX, Announcer
from mishards.wire.messages import Notice


class FakePeers:
    """Every node counts its notices and answers when `free` is set."""

    def __init__(self) -> None:
        self.told: list[NodeId] = []
        self.free = asyncio.Event()
        self.failure: Exception | None = None

    def members(self) -> tuple[Member, ...]:
        return tuple(Member(id=NodeId(name), roles=("reader",), address=name) for name in ("me", "a", "b"))

    def node(self, member: Member) -> Any:
        peers = self

        class Node:
            async def notify(self, notice: Notice) -> None:
                peers.told.append(member.id)
                await peers.free.wait()
                if peers.failure is not None:
                    raise peers.failure

        return Node()


def announcer_to(peers: FakePeers) -> Announcer:
    given: Any = peers
    return Announcer(NodeId("me"), given, given)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_others_are_told_and_nothing_is_kept() -> None:
    """Not this process itself; a member that cannot be reached will poll."""
    peers = FakePeers()
    peers.free.set()
    announcer = announcer_to(peers)

    for peers.failure in None, MishardsError(Kind.PEER_LOST, "gone"):
        announcer.announce(Notice())
        await settle()

    assert peers.told == ["a", "b", "a", "b"]
    assert announcer._tasks == {}


async def test_a_member_that_hangs_costs_a_bounded_number_of_pushes() -> None:
    """They end when this process stops."""
    peers = FakePeers()
    announcer = announcer_to(peers)

    for _ in range(2 * IN_FLIGHT_MAX):
        announcer.announce(Notice())
    await settle()
    assert peers.told.count(NodeId("a")) == IN_FLIGHT_MAX

    await announcer.stop()
    await settle()
    assert announcer._tasks == {}
