"""Back-off: a task that failed rests for a while, the longer the more often it failed in a row."""

from __future__ import annotations

import msgspec

from mishards.clock import Clock

REST_S_MAX = 60.0
REMEMBERED_S = 600.0  # after a rest; a task that was not wanted again by then is forgotten (P15)


class Rest(msgspec.Struct, frozen=True):
    until_s: float
    failures: int


class Rests:
    """Which tasks rest, by name."""

    def __init__(self, clock: Clock, first_s: float) -> None:
        self._clock = clock
        self._first_s = first_s
        self._rests: dict[str, Rest] = {}

    def add(self, name: str) -> float:
        """The task failed: how many seconds it rests now; twice as long each time, jittered."""
        failures = self._rests[name].failures + 1 if name in self._rests else 1
        longest_s = min(REST_S_MAX, self._first_s * 2.0 ** min(failures, 16))
        rest_s = longest_s * (0.5 + self._clock.random() / 2)
        self._rests[name] = Rest(self._clock.monotonic_s() + rest_s, failures)
        return rest_s

    def end(self, name: str) -> None:
        """The task was done."""
        self._rests.pop(name, None)

    def resting(self) -> set[str]:
        """The names of those that rest now."""
        now_s = self._clock.monotonic_s()
        self._rests = {name: rest for name, rest in self._rests.items() if now_s < rest.until_s + REMEMBERED_S}
        return {name for name, rest in self._rests.items() if now_s < rest.until_s}
