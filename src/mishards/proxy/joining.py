"""Searches that differ only in their query vectors, asked as one (P18).

Whoever comes first leads: it lets those join who are ready in the same turn of the loop, or who come while searches of
the same shape are under way, up to `PATIENCE_S`; then it asks for all of them. A lone search waits for one turn; under
load a plan, a frame and a merge serve several searches. As with commits, no timer makes a lone one wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.wire.deadlines import Deadlines

PATIENCE_S = 0.001  # longer searches are not worth waiting for

Q = TypeVar("Q")
R = TypeVar("R")


class _Group(Generic[Q, R]):
    """What was asked together: the leader's first, then who joined, each with a place for the answer."""

    def __init__(self, first: Q, weight: int) -> None:
        self.asked = [first]
        self.weight = weight
        self.waiting: list[asyncio.Future[R | None]] = []  # None: the leader is gone, ask again
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Joining(Generic[Q, R]):
    """Calls `ask` once for all that come together with the same key, up to a total weight."""

    def __init__(self, clock: Clock, weight_max: int) -> None:
        self._clock = clock
        self._weight_max = weight_max
        self._open: dict[object, _Group[Q, R]] = {}  # may be joined
        self._asking: dict[object, asyncio.Future[None]] = {}  # the newest under way; done when it is over
        self._deadlines = Deadlines()

    async def ask(
        self, key: object, question: Q, weight: int, ask: Callable[[list[Q]], Awaitable[list[R]]], deadline_s: float
    ) -> R:
        """The answer to `question`: of `ask`, whose answers are in the order of the questions. `deadline_s` is a
        monotonic time; it ends the waiting of those who joined, while `ask` minds the leader's."""
        while True:
            group = self._open.get(key)
            if group is None or group.weight + weight > self._weight_max:
                return await self._lead(key, question, weight, ask)
            group.asked.append(question)
            group.weight += weight
            answer = await self._follow(group, deadline_s)
            if answer is not None:
                return answer

    async def _lead(self, key: object, question: Q, weight: int, ask: Callable[[list[Q]], Awaitable[list[R]]]) -> R:
        group: _Group[Q, R] = _Group(question, weight)
        self._open[key] = group
        try:
            await self._gather(key)
            self._close(key, group)
            self._asking[key] = group.over
            answers = await ask(group.asked)
        except MishardsError as error:
            # Time was the leader's alone: the others may have more.
            _settle(group, None if error.kind is Kind.DEADLINE else error)
            raise
        except BaseException as error:
            _settle(group, error if isinstance(error, Exception) else None)
            raise
        finally:
            self._close(key, group)
            group.over.set_result(None)
            if self._asking.get(key) is group.over:
                del self._asking[key]
        for future, answer in zip(group.waiting, answers[1:], strict=True):
            if not future.done():
                future.set_result(answer)
        return answers[0]

    async def _gather(self, key: object) -> None:
        """Let others join."""
        under_way = self._asking.get(key)
        if under_way is None:
            await asyncio.sleep(0)
        else:
            await _over(under_way, PATIENCE_S)

    async def _follow(self, group: _Group[Q, R], deadline_s: float) -> R | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R | None] = loop.create_future()
        group.waiting.append(answer)
        self._deadlines.add(answer, loop.time() + deadline_s - self._clock.monotonic_s(), _late)
        try:
            return await answer
        finally:
            self._deadlines.remove(answer)

    def _close(self, key: object, group: _Group[Q, R]) -> None:
        """Nobody joins any more. A full group may have been followed by another one of the same key."""
        if self._open.get(key) is group:
            del self._open[key]


async def _over(future: asyncio.Future[None], wait_s: float) -> None:
    """Returns when the future is done, or after `wait_s`: `asyncio.wait` of one, at a third of its cost."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def end(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    timer = loop.call_later(wait_s, end)
    future.add_done_callback(end)
    try:
        await over
    finally:
        timer.cancel()
        future.remove_done_callback(end)


def _late() -> MishardsError:
    return MishardsError(Kind.DEADLINE, "the request's time is up")


def _settle(group: _Group[Q, R], error: Exception | None) -> None:
    """Tell those who joined that there is no answer: because of `error`, or None: they should ask again."""
    for future in group.waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
