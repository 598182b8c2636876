"""Who shares the shards: members that live, by discovery and by asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, Member, NodeId, Role
from mishards.routing.rendezvous import capped
from mishards.wire.messages import NodeStatus
from mishards.wire.ownership import Ownership
from mishards.writer.others import Fellows
from mishards.writer.shard import Shard

COLLECTION = CollectionId(7)


class FakeMembership:
    def __init__(self, *members: Member) -> None:
        self.members = members

    def of(self, role: Role) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.state == "ready")

    def on_change(self, callback: Callable[[], None]) -> None:
        pass


class FakePeers:
    """Those in `dead` do not answer; at the address of those in `replaced` another process does."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.replaced: set[str] = set()

    def node(self, member: Member) -> Any:
        if member.id in self.dead:
            return FakeNode(None)
        return FakeNode("another" if member.id in self.replaced else member.id)


class FakeNode:
    def __init__(self, name: str | None) -> None:
        self._name = name

    async def status(self, request: object) -> NodeStatus:
        if self._name is None:
            raise MishardsError(Kind.PEER_LOST, "connection refused")
        return NodeStatus(NodeId(self._name), ("writer",), "ready", 1.0, 1, 0, {})


def member(name: str, incarnation: str = "1", **changes: Any) -> Member:
    return Member(id=NodeId(name), roles=("writer",), address=f"tcp://{name}:1", incarnation=incarnation, **changes)


class Case:
    def __init__(self, *members: Member) -> None:
        self.membership = FakeMembership(*members)
        self.peers = FakePeers()
        self.clock = FakeClock()
        parts: list[Any] = [self.membership, self.peers, Ownership(capped), self.clock]
        self.fellows = Fellows(NodeId("w1"), *parts)

    def owners(self, shards: int = 4) -> list[NodeId | None]:
        return [self.fellows.owner(Shard(COLLECTION, number), shards) for number in range(shards)]


def test_the_shards_of_a_collection_spread_evenly() -> None:
    """Each of two writers owns two of four, each of four one."""
    for count in (2, 4):
        owners = Case(*(member(f"w{n}") for n in range(1, count + 1))).owners()
        assert sorted(owners.count(NodeId(f"w{n}")) for n in range(1, count + 1)) == [4 // count] * count


def test_a_writer_that_drains_or_leaves_owns_nothing() -> None:
    """Whether another one drains, or this one stops."""
    drains = Case(member("w1"), member("w2", state="draining"))
    assert set(drains.owners()) == {"w1"}

    leaves = Case(member("w1"), member("w2"))
    leaves.fellows.leave()
    assert set(leaves.owners()) == {"w2"}


def test_without_any_writer_nobody_owns_a_shard() -> None:
    """Nor one that the collection does not have."""
    assert set(Case().owners()) == {None}
    assert Case(member("w1")).fellows.owner(Shard(COLLECTION, 4), 4) is None


async def test_a_silent_writer_owns_nothing_until_it_answers() -> None:
    """Or until it starts anew."""
    case = Case(member("w1"), member("w2"))
    case.peers.dead = {"w2"}
    assert not await case.fellows.answers(NodeId("w2"))
    assert set(case.owners()) == {"w1"}
    await case.fellows.reconsider()
    assert set(case.owners()) == {"w1"}

    case.membership.members = (member("w1"), member("w2", "2"))
    assert set(case.owners()) == {"w1", "w2"}

    case.membership.members = (member("w1"), member("w2"))
    case.peers.dead = set()
    await case.fellows.reconsider()
    assert set(case.owners()) == {"w1", "w2"}


async def test_another_process_at_the_same_address_is_no_answer() -> None:
    """A port that a dead writer had may be taken anew."""
    case = Case(member("w1"), member("w2"))
    case.peers.replaced = {"w2"}

    assert not await case.fellows.answers(NodeId("w2"))


async def test_who_left_does_not_answer() -> None:
    """What discovery does not list any more is not asked."""
    assert not await Case(member("w1")).fellows.answers(NodeId("w2"))


async def test_the_writers_are_settled_since_their_last_change() -> None:
    """A new start of one of them counts, and one that falls silent."""
    case = Case(member("w1"), member("w2"))
    case.fellows.settled_s()
    case.clock.advance(5.0)
    assert case.fellows.settled_s() == 5.0

    case.membership.members = (member("w1"), member("w2", "2"))
    assert case.fellows.settled_s() == 0.0
    case.clock.advance(5.0)
    case.fellows.suspect(NodeId("w2"))
    assert case.fellows.settled_s() == 0.0
