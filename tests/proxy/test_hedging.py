"""A late part is asked of a second reader; the first answer wins, within a budget (P17)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.proxy.hedging import CLASSES_MAX, FLOOR_S, RECOMPUTED_EVERY, START_S, Budget, Hedging, Latencies

CLASS = 1


class Call:
    """One request to one reader, answered when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = False
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.asked.set()
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def fail(self, error: Exception) -> None:
        self.answer.set_exception(error)


def hedging(share: float = 1.0) -> Hedging:
    """Late after `FLOOR_S`, as in a cluster that answers fast."""
    made = Hedging(FakeClock(), share)
    for _ in range(RECOMPUTED_EVERY):
        made._latencies.add(CLASS, 0.001)
    return made


def no_second() -> Callable[[], Call]:
    def ask() -> Call:
        raise AssertionError("a second reader was asked")

    return ask


async def test_an_answer_in_time_asks_nobody_else() -> None:
    """Nor does an error in time: sending it elsewhere is what retries are for."""
    first = Call()
    first.answer.set_result("first")
    assert await hedging().first_answer(CLASS, first, no_second()) == "first"

    failing = Call()
    failing.fail(MishardsError(Kind.PEER_LOST, "gone"))
    with pytest.raises(MishardsError, match="gone"):
        await hedging().first_answer(CLASS, failing, no_second())


async def test_when_the_first_is_late_the_second_may_win() -> None:
    """The first is cancelled, and has ended when the answer is given."""
    first, second = Call(), Call()
    second.answer.set_result("second")

    assert await hedging().first_answer(CLASS, first, second) == "second"
    assert first.cancelled


async def test_a_late_first_answer_still_counts() -> None:
    """Then the second is cancelled."""
    first, second = Call(), Call()
    asking = asyncio.create_task(hedging().first_answer(CLASS, first, second))
    await second.asked.wait()
    first.answer.set_result("first")

    assert await asking == "first"
    assert second.cancelled


@pytest.mark.parametrize("error", [MishardsError(Kind.PEER_LOST, "second"), RuntimeError("not for people")])
async def test_a_failing_second_costs_nothing(error: Exception) -> None:
    """Whatever it raises, the first may answer yet."""
    first, second = Call(), Call()
    second.fail(error)
    asking = asyncio.create_task(hedging().first_answer(CLASS, first, second))
    await second.asked.wait()
    first.answer.set_result("first")

    assert await asking == "first"


async def test_when_both_fail_the_error_is_the_first_ones() -> None:
    """In whichever order they fail: the retry then leaves out the reader that was chosen first."""
    for order in (0, 1), (1, 0):
        calls = Call(), Call()
        asking = asyncio.create_task(hedging().first_answer(CLASS, *calls))
        await calls[1].asked.wait()
        for number in order:
            calls[number].fail(MishardsError(Kind.PEER_LOST, f"reader {number}"))
            await asyncio.sleep(0)

        with pytest.raises(MishardsError, match="reader 0"):
            await asking


async def test_without_budget_the_first_is_waited_for() -> None:
    """A slow cluster is not made slower."""
    made = hedging(share=0.0)
    while made._budget.take():
        pass
    first = Call()
    asking = asyncio.create_task(made.first_answer(CLASS, first, no_second()))
    await asyncio.wait([asking], timeout=2 * FLOOR_S)
    first.answer.set_result("first")

    assert await asking == "first"


async def test_a_cancelled_request_cancels_both() -> None:
    """A client that hangs up frees two readers."""
    first, second = Call(), Call()
    asking = asyncio.create_task(hedging().first_answer(CLASS, first, second))
    await second.asked.wait()

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert asking.cancelled()
    assert first.cancelled
    assert second.cancelled


def test_a_budget_is_a_share_of_what_is_sent() -> None:
    """What is saved is limited."""
    budget = Budget(0.25, saved_max=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]

    for _ in range(4):
        budget.sent()
    assert [budget.take() for _ in range(2)] == [True, False]

    for _ in range(100):
        budget.sent()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_late_is_the_95th_percentile_of_the_same_class() -> None:
    """With few seen a cautious guess; never below a floor; another collection's parts do not count."""
    latencies = Latencies()
    for number in range(RECOMPUTED_EVERY):
        assert latencies.late_s(CLASS) == START_S
        latencies.add(CLASS, 1.0 if number < 5 else 0.1)
        latencies.add(2, 0.0001)

    assert latencies.late_s(CLASS) == pytest.approx(1.0)
    assert latencies.late_s(2) == FLOOR_S
    assert latencies.late_s(3) == START_S


def test_the_classes_remembered_are_bounded() -> None:
    """Collections come and go; forgetting all of them at times is cheap."""
    latencies = Latencies()
    for part_class in range(2 * CLASSES_MAX + 1):
        latencies.add(part_class, 0.1)

    assert len(latencies._recent) <= CLASSES_MAX
