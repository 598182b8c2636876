"""Calls side by side end together."""

from __future__ import annotations

import asyncio

import pytest

from mishards.proxy.together import all_of


async def answer(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def fail() -> int:
    raise RuntimeError("failed")


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_the_answers_come_in_order(count: int) -> None:
    """However many there are."""
    assert await all_of([answer(number) for number in range(count)]) == list(range(count))


@pytest.mark.parametrize("cancelled", [True, False])
async def test_none_is_left_behind(cancelled: bool) -> None:
    """Neither after one has failed nor when the caller is cancelled; its error is raised as it is."""
    begun, ended = [], []

    async def hang() -> int:
        begun.append("hang")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hang")
        return 0

    asking = asyncio.create_task(all_of([hang(), hang(), answer(1) if cancelled else fail()]))
    while len(begun) < 2:  # noqa: ASYNC110 - no time passes
        await asyncio.sleep(0)
    if cancelled:
        asking.cancel()

    with pytest.raises(asyncio.CancelledError if cancelled else RuntimeError):
        await asking
    assert ended == ["hang", "hang"]
