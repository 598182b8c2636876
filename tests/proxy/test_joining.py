"""Searches that are asked as one: who joins whom, and what becomes of them when the one who asks fails (P17, P18)."""

from __future__ import annotations

import asyncio

import pytest

from mishards.clock import SystemClock
from mishards.errors import Kind, MishardsError
from mishards.proxy.joining import Joining


class Asked:
    """Answers each question with its double, and remembers what was asked together."""

    def __init__(self, *failures: BaseException) -> None:
        self.together: list[list[int]] = []
        self._failures = list(failures)
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.answering = asyncio.Event()
        self.answering.set()

    async def __call__(self, questions: list[int]) -> list[int]:
        self.together.append(list(questions))
        self.begun.put_nowait(None)
        await self.answering.wait()
        if self._failures:
            raise self._failures.pop(0)
        return [2 * question for question in questions]


def asking(joining: Joining[int, int], asked: Asked, *questions: int, key: str = "k") -> list[asyncio.Task[int]]:
    deadline_s = SystemClock().monotonic_s() + 600
    return [asyncio.create_task(joining.ask(key, question, 1, asked, deadline_s)) for question in questions]


def new(weight_max: int = 10) -> Joining[int, int]:
    return Joining(SystemClock(), weight_max)


async def test_those_who_come_in_one_turn_are_asked_as_one() -> None:
    """Each gets its own answer."""
    joining, asked = new(), Asked()

    assert await asyncio.gather(*asking(joining, asked, 1, 2, 3)) == [2, 4, 6]
    assert asked.together == [[1, 2, 3]]


async def test_those_who_come_later_are_asked_by_themselves() -> None:
    """Nobody waits for an answer under way to be able to ask."""
    joining, asked = new(), Asked()
    asked.answering.clear()
    first = asking(joining, asked, 1)
    await asked.begun.get()
    second = asking(joining, asked, 2)
    await asked.begun.get()
    asked.answering.set()

    assert await asyncio.gather(*first, *second) == [2, 4]
    assert asked.together == [[1], [2]]


async def test_different_shapes_are_not_mixed() -> None:
    """Only what differs in nothing but the vectors is joined."""
    joining, asked = new(), Asked()

    await asyncio.gather(*asking(joining, asked, 1), *asking(joining, asked, 2, key="other"))

    assert asked.together == [[1], [2]]


async def test_a_group_has_a_limit() -> None:
    """Who does not fit any more leads the next group, which others join."""
    joining, asked = new(weight_max=2), Asked()

    assert await asyncio.gather(*asking(joining, asked, 1, 2, 3, 4, 5)) == [2, 4, 6, 8, 10]
    assert sorted(asked.together) == [[1, 2], [3, 4], [5]]


async def test_a_failure_is_everybodys() -> None:
    """The question was the same, so asking it again would fail again."""
    joining, asked = new(), Asked(MishardsError(Kind.UNAVAILABLE, "no reader"))

    outcomes = await asyncio.gather(*asking(joining, asked, 1, 2), return_exceptions=True)

    assert [getattr(outcome, "kind", None) for outcome in outcomes] == [Kind.UNAVAILABLE, Kind.UNAVAILABLE]
    assert len(asked.together) == 1


@pytest.mark.parametrize("late", [False, True])
async def test_a_leader_that_goes_takes_nobody_along(late: bool) -> None:
    """Cancelled while it collects or while it asks: the others ask again, led by one of them."""
    joining, asked = new(), Asked()
    asked.answering.clear()
    tasks = asking(joining, asked, 1, 2, 3)
    await (asked.begun.get() if late else asyncio.sleep(0))
    tasks[0].cancel()
    asked.answering.set()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [4, 6]
    assert asked.together[-1] == [2, 3]


async def test_the_leaders_time_is_its_own() -> None:
    """When it is up, those who joined and have more ask again."""
    joining, asked = new(), Asked(MishardsError(Kind.DEADLINE, "not answered within 1 s"))

    outcomes = await asyncio.gather(*asking(joining, asked, 1, 2), return_exceptions=True)

    assert isinstance(outcomes[0], MishardsError)
    assert outcomes[1] == 4


async def test_who_joined_waits_no_longer_than_it_may() -> None:
    """Its deadline ends its waiting, not the others' search."""
    joining, asked = new(), Asked()
    asked.answering.clear()
    leader = asking(joining, asked, 1)[0]
    impatient = asyncio.create_task(joining.ask("k", 2, 1, asked, 0.0))

    with pytest.raises(MishardsError) as failure:
        await impatient
    asked.answering.set()

    assert failure.value.kind is Kind.DEADLINE
    assert await leader == 2


async def test_a_follower_that_goes_leaves_the_others_their_answers() -> None:
    """Its place in the group stays empty."""
    joining, asked = new(), Asked()
    asked.answering.clear()
    tasks = asking(joining, asked, 1, 2, 3)
    await asked.begun.get()
    tasks[1].cancel()
    asked.answering.set()

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert (outcomes[0], outcomes[2]) == (2, 6)
