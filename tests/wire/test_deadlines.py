"""Deadlines of many waits behind one timer: each fails at its own time, or never (P17)."""

from __future__ import annotations

import asyncio

import pytest

from mishards.wire.deadlines import Deadlines

NEVER_S = 3600.0


def waiting(deadlines: Deadlines, after_s: float, name: str = "late") -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    deadlines.add(future, loop.time() + after_s, lambda: ValueError(name))
    return future


async def failure(future: asyncio.Future[str]) -> str:
    with pytest.raises(ValueError) as raised:
        await future
    return str(raised.value)


async def test_each_fails_at_its_own_time() -> None:
    """An earlier deadline that comes later is not overslept, and a later one is not forgotten."""
    deadlines = Deadlines()
    never, second = waiting(deadlines, NEVER_S), waiting(deadlines, 0.02, "second")
    first = waiting(deadlines, 0.01, "first")
    order: list[str] = []
    for name, future in (("second", second), ("first", first)):
        future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]

    assert [await failure(second), await failure(first)] == ["second", "first"]
    assert order == ["first", "second"]
    assert not never.done()
    deadlines.close()


async def test_who_is_removed_or_done_never_fails() -> None:
    """The timer that was set for it rings for the others."""
    deadlines = Deadlines()
    removed, done = waiting(deadlines, 0.0), waiting(deadlines, 0.0)
    deadlines.remove(removed)
    done.set_result("in time")

    await failure(waiting(deadlines, 0.01))

    assert not removed.done()
    assert await done == "in time"


async def test_time_that_is_up_is_noticed_in_the_next_turn() -> None:
    """Also when the deadline was past from the start."""
    assert await failure(waiting(Deadlines(), -5.0, "past")) == "past"


async def test_after_the_end_nothing_fails() -> None:
    """Whoever closes settles what waits by itself."""
    deadlines = Deadlines()
    future = waiting(deadlines, 0.0)
    deadlines.close()

    await failure(waiting(Deadlines(), 0.01))

    assert not future.done()
