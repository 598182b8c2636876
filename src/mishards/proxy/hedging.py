"""Hedging: a part that takes unusually long is asked of a second ready replica as well; the first answer wins (P17).

Unusually long is the 95th percentile of that collection's recent parts. The share of parts hedged is bounded, so that
a slow cluster is not made slower.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mishards.clock import Clock

T = TypeVar("T")

FLOOR_S = 0.02  # never sooner: below it the second request costs more than it saves
START_S = 0.25  # until enough parts have been seen
SEEN_MAX = 256
RECOMPUTED_EVERY = 32  # parts; fewer say too little
CLASSES_MAX = 4096  # collections whose latencies are remembered


class Budget:
    """Extra requests as a share of requests sent; unused ones are saved up to a limit."""

    def __init__(self, share: float, saved_max: float) -> None:
        self._share = share
        self._saved_max = saved_max
        self._saved = saved_max

    def sent(self) -> None:
        self._saved = min(self._saved_max, self._saved + self._share)

    def take(self) -> bool:
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


@dataclass(slots=True)
class Recent:
    """The latencies of one class."""

    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=SEEN_MAX))
    count: int = 0
    late_s: float = START_S


class Latencies:
    """Recent part latencies by class, and their 95th percentile."""

    def __init__(self) -> None:
        self._recent: dict[Hashable, Recent] = {}

    def add(self, part_class: Hashable, latency_s: float) -> None:
        if len(self._recent) >= CLASSES_MAX and part_class not in self._recent:
            self._recent.clear()
        recent = self._recent.setdefault(part_class, Recent())
        recent.latencies_s.append(latency_s)
        recent.count += 1
        if recent.count % RECOMPUTED_EVERY == 0:
            recent.late_s = max(FLOOR_S, float(np.percentile(recent.latencies_s, 95)))

    def late_s(self, part_class: Hashable) -> float:
        """After how long a part is late."""
        recent = self._recent.get(part_class)
        return START_S if recent is None else recent.late_s


class Hedging:
    """Asks one node, and a second one when the first is late."""

    def __init__(self, clock: Clock, share: float) -> None:
        self._clock = clock
        self._latencies = Latencies()
        self._budget = Budget(share, saved_max=50.0)

    async def first_answer(
        self, part_class: Hashable, ask: Callable[[], Awaitable[T]], ask_other: Callable[[], Awaitable[T]]
    ) -> T:
        """The first answer of the two; the error of `ask` only when neither answers. The loser is cancelled."""
        self._budget.sent()
        asked: list[asyncio.Future[T]] = [asyncio.ensure_future(self._timed(part_class, ask))]
        try:
            await asyncio.wait(asked, timeout=self._latencies.late_s(part_class))
            if not asked[0].done() and self._budget.take():
                asked.append(asyncio.ensure_future(self._timed(part_class, ask_other)))
            return await _first_success(asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _timed(self, part_class: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        started_s = self._clock.monotonic_s()
        answer = await ask()
        self._latencies.add(part_class, self._clock.monotonic_s() - started_s)
        return answer


async def _first_success(asked: list[asyncio.Future[T]]) -> T:
    """The result of the first task that succeeds, else the first task's error."""
    pending = set(asked)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return task.result()
    return await asked[0]
