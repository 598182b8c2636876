"""Time, randomness and fresh names, injected everywhere so that a cluster can run under a fake clock (I16).

Nothing else in the package reads a clock, draws a random number or makes a uuid.
"""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol

LOGICAL_BITS = 18  # of a hybrid timestamp: unix_ms << 18 | logical, as Milvus clients read it


class Clock(Protocol):
    """What the roles know of time and chance."""

    def monotonic_s(self) -> float:
        """Seconds on this process' monotonic clock; for waiting, deadlines and staleness."""
        ...

    def unix_ms(self) -> int:
        """Wall clock milliseconds; only for what people read and for hybrid timestamps, never for safety."""
        ...

    def token(self) -> str:
        """A fresh random name of 32 hex digits: nonces, commit uuids, file names."""
        ...

    def random(self) -> float:
        """Uniform in [0, 1): jitter and probing."""
        ...


class SystemClock:
    """The machine's clocks and the system's randomness."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def token(self) -> str:
        return uuid.uuid4().hex

    def random(self) -> float:
        return random.random()


class FakeClock:
    """A clock that stands still until a test moves it; tokens and chance come from one seed."""

    def __init__(self, seed: int = 0, now_s: float = 1_000.0) -> None:
        self._random = random.Random(seed)
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return int(self.now_s * 1000)

    def token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def random(self) -> float:
        return self._random.random()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def hybrid(unix_ms: int, logical: int = 0) -> int:
    """The hybrid timestamp of a wall clock reading."""
    return unix_ms << LOGICAL_BITS | logical
