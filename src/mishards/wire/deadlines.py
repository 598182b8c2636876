"""Deadlines of many short waits, with one timer of the loop for all of them (P18).

A timer a wait, as `asyncio.timeout` has it, costs more than the wait itself where nearly none of them ever runs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

EARLY_S = 0.001  # timers are that exact


class Deadlines:
    """Futures that fail when their time is up. Owned by one event loop, whose time counts."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[Any], tuple[float, Callable[[], Exception]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0  # when it rings: not after the first deadline

    def add(self, future: asyncio.Future[Any], ends_s: float, late: Callable[[], Exception]) -> None:
        """At the loop's time `ends_s` the future fails with `late()`, unless it is done or removed by then."""
        self._waiting[future] = (ends_s, late)
        if self._timer is None or ends_s < self._timer_s:
            self._ring_at(ends_s)

    def remove(self, future: asyncio.Future[Any]) -> None:
        """Forget the future. The timer stays: the next ones are hardly ever due earlier."""
        self._waiting.pop(future, None)

    def close(self) -> None:
        """Nothing fails any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._ring)
        self._timer_s = at_s

    def _ring(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time() + EARLY_S
        for future in [future for future, (ends_s, _) in self._waiting.items() if ends_s <= now_s]:
            _, late = self._waiting.pop(future)
            if not future.done():
                future.set_exception(late())
        if self._waiting:
            self._ring_at(min(ends_s for ends_s, _ in self._waiting.values()))
