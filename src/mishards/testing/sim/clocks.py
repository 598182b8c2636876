"""The clocks of the simulation: one true time, and what each process believes."""

from __future__ import annotations

from random import Random

from mishards.testing.sim.loop import Process, SimLoop

EPOCH_MS = 1_800_000_000_000  # of the loop's time 0 by the database's clock


class SimClock:
    """`clock.Clock` of one process: its wall clock may be wrong (I16)."""

    def __init__(self, loop: SimLoop, process: Process, random: Random) -> None:
        self._loop = loop
        self._process = process
        self._random = random

    def monotonic_s(self) -> float:
        return self._loop.time()

    def unix_ms(self) -> int:
        return database_ms(self._loop) + self._process.skew_ms

    def token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def random(self) -> float:
        return self._random.random()


def database_ms(loop: SimLoop) -> int:
    """The true time, which is the database's."""
    return EPOCH_MS + int(loop.time() * 1000)
