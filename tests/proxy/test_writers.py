"""Finding the owner of a shard: redirected, lost, taken over, none (P2)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import peers as p
import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, NodeId, Schema
from mishards.proxy.writers import Writers, answered
from mishards.wire.ownership import Ownership

COLLECTION = Collection(
    id=CollectionId(1), name="books", schema=Schema(fields=()), created_ts=1, updated_ts=1, shards=2
)


class FakeWriter:
    """Knows which shards it owns; `failures` are raised first, one a call."""

    def __init__(self, name: str, owners: dict[int, str]) -> None:
        self.name = name
        self._owners = owners
        self.failures: list[MishardsError] = []
        self.asked: list[tuple[int, ...]] = []

    def take(self, shards: Sequence[int]) -> list[tuple[str, int]]:
        self.asked.append(tuple(shards))
        if self.failures:
            raise self.failures.pop(0)
        for shard in shards:
            if self._owners[shard] != self.name:
                raise MishardsError(Kind.NOT_OWNER, f"shard {shard} is another's", self._owners[shard])
        return [(self.name, shard) for shard in shards]


class FakeRouter:
    """Everything should belong to `first`, or to the first member when it is not there."""

    first = "a"

    def place(self, members: Any, items: Any, replicas: int) -> dict[str, tuple[NodeId, ...]]:
        names = [member.id for member in members]
        return {item.key: (self.first if self.first in names else names[0],) for item in items}


class Case:
    def __init__(self, **owners: str) -> None:
        """`s0="a"`: shard 0 is a's."""
        self.owners = {int(shard[1:]): owner for shard, owner in owners.items()}
        self.writers = {name: FakeWriter(name, self.owners) for name in "ab"}
        self.membership = p.FakeMembership(p.member("a", "writer"), p.member("b", "writer"))
        self.clock = FakeClock()
        parts: list[Any] = [self.membership, p.FakePeers(**self.writers), Ownership(FakeRouter())]
        self.found = Writers(*parts, self.clock)

    async def ask(self, left_s: float = 1.0) -> list[tuple[str, int]]:
        async def call(writer: Any, shards: Sequence[int], left_s: float) -> list[tuple[str, int]]:
            self.clock.advance(0.01)
            taken: list[tuple[str, int]] = writer.take(shards)
            return taken

        deadline_s = self.clock.monotonic_s() + left_s
        replies = await self.found.ask_owners(COLLECTION, sorted(self.owners), call, deadline_s)
        return sorted(pair for reply in replies for pair in reply)

    def asked(self, name: str) -> list[tuple[int, ...]]:
        return self.writers[name].asked


def lost() -> MishardsError:
    return MishardsError(Kind.PEER_LOST, "connection lost")


async def test_the_writer_says_who_owns_a_shard() -> None:
    """The redirect is followed, and remembered for the next write."""
    case = Case(s0="b")

    assert await case.ask() == [("b", 0)]
    assert await case.ask() == [("b", 0)]

    assert case.asked("a") == [(0,)]
    assert case.asked("b") == [(0,), (0,)]


async def test_shards_of_one_owner_travel_together() -> None:
    """One call and so one commit."""
    case = Case(s0="a", s1="a")

    assert await case.ask() == [("a", 0), ("a", 1)]
    assert case.asked("a") == [(0, 1)]


async def test_shards_of_several_owners_are_told_apart() -> None:
    """Once it is known who owns them, one call each."""
    case = Case(s0="a", s1="b")
    await case.ask()
    for writer in case.writers.values():
        writer.asked.clear()

    assert await case.ask() == [("a", 0), ("b", 1)]
    assert (case.asked("a"), case.asked("b")) == ([(0,)], [(1,)])


async def test_after_a_lost_answer_the_request_is_repeated() -> None:
    """The writer knows by its id whether it was done."""
    case = Case(s0="a")
    case.writers["a"].failures = [lost()]

    assert await case.ask() == [("a", 0)]
    assert case.asked("a") == [(0,), (0,)]


async def test_shards_that_moved_together_stay_together() -> None:
    """What another owner has all of is one call and so one commit (I10)."""
    case = Case(s0="b", s1="b")

    assert await case.ask() == [("b", 0), ("b", 1)]
    assert (case.asked("a"), case.asked("b")) == ([(0, 1)], [(0, 1)])


async def test_a_writer_that_left_is_replaced() -> None:
    """Its shards go to the one that takes them over."""
    case = Case(s0="a")
    await case.ask()
    case.membership.set(p.member("b", "writer"))
    case.owners[0] = "b"

    assert await case.ask() == [("b", 0)]


async def test_a_shard_whose_lease_has_not_run_out_is_waited_for() -> None:
    """As long as the request's deadline lasts."""
    case = Case(s0="b")
    case.writers["b"].failures = [MishardsError(Kind.NOT_OWNER, "held by the dead", "x"), lost()]

    assert await case.ask() == [("b", 0)]


async def test_when_nobody_takes_the_shard_in_time_the_error_is_retryable() -> None:
    """It names the last cause."""
    case = Case(s0="nobody")

    with pytest.raises(MishardsError, match="another's") as caught:
        await case.ask(left_s=0.04)
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_without_a_writer_the_error_says_so() -> None:
    """At once."""
    case = Case(s0="a")
    case.membership.set()

    with pytest.raises(MishardsError, match="0 writers") as caught:
        await case.ask()
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_what_the_writer_refuses_passes_through() -> None:
    """A wrong request is not sent to anybody else."""
    case = Case(s0="a")
    case.writers["a"].failures = [MishardsError(Kind.SCHEMA_MISMATCH, "old schema")]

    with pytest.raises(MishardsError) as caught:
        await case.ask()
    assert caught.value.kind is Kind.SCHEMA_MISMATCH
    assert case.asked("b") == []


async def test_definitions_go_to_any_writer_that_answers() -> None:
    """A lost one is passed over."""
    case = Case(s0="a")
    names = []

    async def define(writer: Any) -> str:
        names.append(writer.name)
        if writer.name == "a":
            raise lost()
        return str(writer.name)

    assert await case.found.ask_any(define, case.clock.monotonic_s() + 1.0) == "b"
    assert names == ["a", "b"]


async def test_a_silent_writer_counts_as_lost() -> None:
    """Whoever waits for it is told so in time, and may ask again; it goes on with nothing that nobody waits for."""
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    with pytest.raises(MishardsError) as silent:
        await answered(asked, silent_s=0.0)

    assert (silent.value.kind, silent.value.message) == (Kind.PEER_LOST, "the writer has not answered for 0 s")
    assert asked.cancelled()


async def test_a_writer_is_waited_for_no_longer_than_the_request_has_time() -> None:
    """Be it slow, or not there yet."""
    with pytest.raises(MishardsError) as slow:
        await answered(asyncio.get_running_loop().create_future(), left_s=0.0)
    assert (slow.value.kind, slow.value.message) == (Kind.DEADLINE, "the writer has not answered within 0 s")

    case = Case(s0="a")
    case.membership.set()
    with pytest.raises(MishardsError, match="no writer is available"):
        await case.ask(left_s=3.0)
    assert case.membership.waited_s == [pytest.approx(3.0)]


async def test_what_a_writer_answers_is_passed_on() -> None:
    """An answer, and an error, as they are."""

    async def fail() -> None:
        raise lost()

    async def answer() -> str:
        return "written"

    assert await answered(answer()) == "written"
    with pytest.raises(MishardsError, match="connection lost"):
        await answered(fail())
