"""Parts and their readers: each file answered once, elsewhere when a reader fails, in full or not at all (P17, I13)."""

from __future__ import annotations

import asyncio
from typing import Any

import peers as p
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import File, NodeId
from mishards.proxy.assign import Choices
from mishards.proxy.readers import Readers
from mishards.proxy.scatter import RETRIES_SAVED_MAX, Placed, ReplanError, Scatter
from mishards.wire.messages import QueryPart, QueryRows
from mishards.wire.placement import file_key

FILES = [p.segment(number) for number in range(1, 7)]


class Cluster:
    """Readers a, b, c, ... that all have every file ready."""

    def __init__(self, *names: str, retry_share: float = 0.1) -> None:
        self.clock = FakeClock()
        self.readers = {name: p.FakeReader(name) for name in names}
        self.membership = p.FakeMembership(*(p.member(name) for name in names))
        peers: Any = p.FakePeers(**self.readers)
        membership: Any = self.membership
        self.health = Readers(membership, peers, self.clock, 30.0)
        for name in names:
            self.health._ready[name] = {1: frozenset(file.id for file in FILES)}  # type: ignore[index]
        self.telling = p.FakeTelling()
        telling: Any = self.telling
        self.scatter = Scatter(self.health, peers, telling, self.clock, retry_share, 0.05)
        self.placed: Any = {file_key(file): tuple(names) for file in FILES}
        self.kept = Placed(FILES, self.placed)

    def ready(self, name: str, *files: File) -> None:
        """What the reader has told it holds."""
        self.health._ready[NodeId(name)] = {1: frozenset(file.id for file in files)}
        self.health.epoch += 1

    async def ask(self, left_s: float = 10.0, files: Any = None) -> dict[str, list[int]]:
        """Which reader answered which files."""

        async def ask(reader: Any, ids: tuple[int, ...], left_s: float) -> QueryRows:
            answer: QueryRows = await reader.query(QueryPart(1, 1, ids, deadline_s=left_s))
            answered.append((reader.name, ids))
            return answer

        answered: list[tuple[str, tuple[int, ...]]] = []
        deadline_s = self.clock.monotonic_s() + left_s
        await self.scatter.ask_all(self.kept if files is None else Placed(files, self.placed), ask, deadline_s)
        by_reader: dict[str, list[int]] = {}
        for name, ids in answered:
            by_reader.setdefault(name, []).extend(ids)
        return by_reader


async def refusal(asked: Any) -> MishardsError:
    with pytest.raises(MishardsError) as caught:
        await asked
    return caught.value


async def test_the_parts_are_spread_and_cover_every_file_once() -> None:
    """Equally loaded readers share the files."""
    made = Cluster("a", "b")

    answered = await made.ask()

    assert {name: len(ids) for name, ids in answered.items()} == {"a": 3, "b": 3}
    assert sorted(answered["a"] + answered["b"]) == [file.id for file in FILES]


@pytest.mark.parametrize("kind", [Kind.PEER_LOST, Kind.UNAVAILABLE, Kind.RATE_LIMIT, Kind.NOT_CAUGHT_UP])
async def test_a_failed_part_is_answered_by_the_others(kind: Kind) -> None:
    """At once, each of its files exactly once."""
    made = Cluster("a", "b", "c")
    made.readers["a"].always(kind)

    answered = await made.ask()

    assert "a" not in answered
    assert sorted(answered["b"] + answered["c"]) == [file.id for file in FILES]
    assert len(made.readers["a"].asked) == 1


async def test_a_lost_reader_is_not_asked_for_a_moment() -> None:
    """Other requests go past it, until the moment is over or nobody else is left."""
    made = Cluster("a", "b")
    made.readers["a"].fails(Kind.PEER_LOST)
    await made.ask()

    assert set(await made.ask()) == {"b"}
    made.clock.advance(1.0)
    assert set(await made.ask()) == {"a", "b"}

    made.health.failed("a")  # type: ignore[arg-type]
    made.health.failed("b")  # type: ignore[arg-type]
    assert set(await made.ask()) == {"a", "b"}


async def test_when_all_have_failed_once_they_are_asked_again() -> None:
    """A hiccup of the only reader fails no request."""
    made = Cluster("a")
    made.readers["a"].fails(Kind.PEER_LOST, Kind.NOT_CAUGHT_UP)

    assert set(await made.ask()) == {"a"}


async def test_a_reader_that_cannot_learn_what_it_missed_is_told() -> None:
    """It says how far it is, and is told what happened since before it is asked again (P14, I17); one that has asked
    the metadata service itself is not."""
    made = Cluster("a", "b")

    async def behave(_: tuple[int, ...]) -> None:
        if not made.telling.told:
            raise MishardsError(Kind.NOT_CAUGHT_UP, "behind, and the metadata service does not answer", "7")

    made.readers["a"].behave = behave
    made.readers["b"].always(Kind.NOT_CAUGHT_UP)

    assert set(await made.ask()) == {"a"}
    assert made.telling.told == [("a", 7)]


async def test_asking_again_ends_with_the_rounds() -> None:
    """A reader that always fails is given up, with its own error."""
    made = Cluster("a")
    made.readers["a"].always(Kind.NOT_CAUGHT_UP)

    assert (await refusal(made.ask())).kind is Kind.NOT_CAUGHT_UP
    assert len(made.readers["a"].asked) <= 10


async def test_retries_are_a_share_of_the_requests() -> None:
    """When what was saved up is spent, failures pass through (P17)."""
    made = Cluster("a", "b", retry_share=0.0)
    retried = 0
    while True:
        made.readers["a"].fails(Kind.NOT_CAUGHT_UP)
        try:
            await made.ask(files=FILES[:1])
        except MishardsError:
            break
        retried += 1

    assert retried == RETRIES_SAVED_MAX


@pytest.mark.parametrize("kind", [Kind.GONE, Kind.NOT_LOADED])
async def test_a_reader_that_misses_a_file_asks_for_another_plan(kind: Kind) -> None:
    """Nobody else is asked for it first."""
    made = Cluster("a")
    made.readers["a"].fails(kind)

    with pytest.raises(ReplanError):
        await made.ask()
    assert len(made.readers["a"].asked) == 1


async def test_a_request_that_is_wrong_is_not_repeated() -> None:
    """What another reader would refuse too fails at once."""
    made = Cluster("a", "b")
    made.readers["a"].always(Kind.PARAMETER_INVALID)

    assert (await refusal(made.ask())).kind is Kind.PARAMETER_INVALID
    assert len(made.readers["a"].asked) == 1


async def test_after_a_failure_the_other_parts_are_cancelled() -> None:
    """Nobody works for an answer that will not be given."""
    made = Cluster("a", "b")
    cancelled = asyncio.Event()

    async def hang(_: tuple[int, ...]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    made.readers["a"].behave = hang
    made.readers["b"].always(Kind.PARAMETER_INVALID)

    assert (await refusal(made.ask())).kind is Kind.PARAMETER_INVALID
    assert cancelled.is_set()
    assert made.health.load("a") == made.health.load("b") == 0  # type: ignore[arg-type]


async def test_a_cancelled_request_cancels_its_parts() -> None:
    """A client that hangs up frees the readers."""
    made = Cluster("a", "b")
    for reader in made.readers.values():
        reader.behave = lambda _: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    asking = asyncio.create_task(made.ask())
    while not all(reader.asked for reader in made.readers.values()):  # noqa: ASYNC110 - no time passes
        await asyncio.sleep(0)

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert made.health.load("a") == made.health.load("b") == 0  # type: ignore[arg-type]


async def test_an_answer_that_covers_too_little_is_no_answer() -> None:
    """Rows answered must be the rows planned (I14)."""
    made = Cluster("a")

    async def ask(reader: Any, ids: tuple[int, ...], left_s: float) -> QueryRows:
        return QueryRows(p.NOTHING, 0, 10 * len(ids) - 1, 0)

    error = await refusal(made.scatter.ask_all(Placed(FILES, made.placed), ask, made.clock.monotonic_s() + 1))
    assert error.kind is Kind.INTERNAL
    assert "59 rows answered, 60 planned" in error.message


async def test_a_reader_that_left_before_it_was_asked_is_replaced() -> None:
    """A plan may name a member that is no more."""
    made = Cluster("a", "b")

    async def leave(_: tuple[int, ...]) -> None:
        made.membership.set(p.member("b"))
        raise MishardsError(Kind.PEER_LOST, "a leaves")

    made.readers["a"].behave = leave

    assert set(await made.ask()) == {"b"}


async def test_no_part_is_sent_after_the_deadline() -> None:
    """A request whose time is up says so."""
    made = Cluster("a")

    assert (await refusal(made.ask(left_s=0.0))).kind is Kind.DEADLINE
    assert made.readers["a"].asked == []


@pytest.mark.parametrize(("left_s", "avoided"), [(0.5, False), (5.0, True)])
async def test_a_reader_that_is_out_of_a_fair_time_is_avoided(left_s: float, avoided: bool) -> None:
    """It may hang. Of an impatient client's deadline other clients notice nothing."""
    made = Cluster("a", "b")
    made.readers["a"].fails(Kind.DEADLINE)

    assert (await refusal(made.ask(left_s))).kind is Kind.DEADLINE
    assert (made.health.usable() == ["b"]) is avoided


async def test_a_plan_without_files_asks_nobody() -> None:
    """An empty collection is answered by the proxy alone, even without readers."""
    assert await Cluster().ask(files=[]) == {}


async def test_a_file_goes_to_the_reader_that_has_it_now() -> None:
    """Of a plan that is kept, too: readiness decides at every search (P11, P16)."""
    made = Cluster("a", "b")
    made.ready("a", *FILES)
    made.ready("b")
    assert set(await made.ask()) == {"a"}

    made.ready("b", *FILES)
    made.ready("a")

    assert set(await made.ask()) == {"b"}


async def test_a_reader_that_joins_or_leaves_is_known_to_the_next_search() -> None:
    """Of a plan that is kept, too."""
    made = Cluster("a", "b")
    both = made.membership.members()
    assert set(await made.ask()) == {"a", "b"}

    made.membership.set(p.member("b"))
    assert set(await made.ask()) == {"b"}
    made.membership.set(*both)
    assert set(await made.ask()) == {"a", "b"}


async def test_the_less_busy_reader_is_taken_at_every_search() -> None:
    """Of a plan that is kept, too: loads differ from search to search (P17)."""
    made = Cluster("a", "b")
    one = Placed(FILES[:1], made.placed)

    async def ask(reader: Any, ids: tuple[int, ...], left_s: float) -> QueryRows:
        answer: QueryRows = await reader.query(QueryPart(1, 1, ids))
        return answer

    taken = []
    for busy in ("a", "b", "a"):
        made.health.sent(NodeId(busy))
        [answer] = await made.scatter.ask_all(one, ask, made.clock.monotonic_s() + 5)
        made.health.answered(NodeId(busy))
        taken.append(answer.node)

    assert taken == ["b", "a", "b"]


@given(st.data())
def test_what_is_kept_is_what_would_be_found_anew(data: st.DataObject) -> None:
    """Whatever happened to readiness, health, membership and loads since the last search (I13, P16, P17)."""
    made = Cluster("a", "b", "c")
    names = ["a", "b", "c"]
    made.kept.nodes = {key: tuple(data.draw(st.permutations(names))[:2]) for key in made.placed}

    def ready() -> None:
        made.ready(data.draw(st.sampled_from(names)), *data.draw(st.lists(st.sampled_from(FILES))))

    def fails() -> None:
        made.health.failed(NodeId(data.draw(st.sampled_from(names))))

    def recovers() -> None:
        made.health._suspect_until.pop(NodeId(data.draw(st.sampled_from(names))), None)

    def time_passes() -> None:
        made.clock.advance(data.draw(st.sampled_from([0.1, 1.0])))

    def members_change() -> None:
        made.membership.set(*map(p.member, data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))))

    def busier() -> None:
        made.health.sent(NodeId(data.draw(st.sampled_from(names))))

    def nothing() -> None:
        """As most often."""

    events = st.sampled_from([ready, fails, recovers, time_passes, members_change, busier, nothing])
    for event in data.draw(st.lists(events, max_size=12)):
        event()

        parts = made.scatter._choices(made.kept).parts(made.health.load)

        anew = Choices(FILES, made.kept.nodes, made.health.usable(), made.health.is_ready)
        assert parts == anew.parts(made.health.load)
        assert sorted(id for part in parts for id in part.ids) == [file.id for file in FILES]


async def test_the_second_step_goes_to_the_reader_named_else_to_another() -> None:
    """The one that found the rows has them at hand."""
    made = Cluster("a", "b")

    async def ask(reader: Any, left_s: float) -> str:
        await reader.query(QueryPart(1, 1, (1,)))
        return str(reader.name)

    deadline_s = made.clock.monotonic_s() + 5
    assert await made.scatter.ask_one(["b"], ask, deadline_s) == "b"  # type: ignore[list-item]
    made.readers["b"].fails(Kind.PEER_LOST)
    assert await made.scatter.ask_one(["b"], ask, deadline_s) == "a"  # type: ignore[list-item]
    made.readers["a"].always(Kind.PEER_LOST)
    made.readers["b"].always(Kind.PEER_LOST)
    error = await refusal(made.scatter.ask_one(["b"], ask, deadline_s))  # type: ignore[list-item]
    assert error.retryable


async def test_the_second_step_ends_with_an_error_that_a_door_understands() -> None:
    """Also when the file is gone everywhere: nobody plans again for it, so nothing but a MishardsError may leave."""
    made = Cluster("a", "b")
    for reader in made.readers.values():
        reader.always(Kind.GONE)

    async def ask(reader: Any, left_s: float) -> QueryRows:
        answer: QueryRows = await reader.query(QueryPart(1, 1, (1,)))
        return answer

    error = await refusal(made.scatter.ask_one(["b"], ask, made.clock.monotonic_s() + 5))  # type: ignore[list-item]
    assert error.retryable
