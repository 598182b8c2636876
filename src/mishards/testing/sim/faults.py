"""What goes wrong in one run: drawn once from the seed, so that some runs are calm and others have one kind of trouble.

Many kinds at once hide each other: a cluster that is always down never gets far enough to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

Outcome = Literal["done", "lost", "unanswered", "torn"]

NETWORK_S = 0.002
REMOTE_S = 0.002  # of storage and the metadata service
SLOW_S = 1.0
SLOW_S_MAX = 3.0  # of what hangs longer the real clients say that it does not answer
SHARES = (0.0, 0.0, 0.002, 0.01, 0.05)  # of the calls that go wrong in one way
FORGETS_SHARE = 0.1  # of the runs
KINDS = ("kill", "pause", "cut", "break", "leave", "join", "storage", "metadata", "cut off")


class Fate(NamedTuple):
    """What becomes of one call to storage or the metadata service: done; lost on the way there; done, but its answer is
    lost; or (storage) done in part. `before_s`, `after_s`: how long the ways there and back take."""

    before_s: float
    after_s: float
    outcome: Outcome = "done"


@dataclass(slots=True)
class Shares:
    """How often the calls of one service go wrong."""

    slow: float = 0.0
    lost: float = 0.0
    unanswered: float = 0.0
    torn: float = 0.0


@dataclass(slots=True)
class Faults:
    """The faults of one run. While not `active`, nothing goes wrong, and everything takes a moment."""

    random: Random
    active: bool = False
    network_s_mean: float = NETWORK_S
    split_share: float = 0.0
    notice_share: float = 0.0  # of pushes that are dropped, doubled or late ...
    notice_fates: tuple[str, ...] = ("lost", "late", "twice")  # ... whichever
    storage: Shares = field(default_factory=Shares)
    metadata: Shares = field(default_factory=Shares)
    kinds: tuple[str, ...] = ()  # of what happens to whole processes, links and services
    pause_s_mean: float = 1.0  # between two of those
    forgets: bool = False  # the metadata service may lose its last transactions

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        def share() -> float:
            return random.choice(SHARES)

        return cls(
            random,
            network_s_mean=random.choice((NETWORK_S, NETWORK_S, 0.02, 0.1)),
            split_share=random.choice((0.0, 0.2)),
            notice_share=random.choice((0.0, 0.1, 0.5, 1.0)),
            notice_fates=random.choice((("lost", "late", "twice"), ("lost",))),
            storage=Shares(share(), share(), share(), share()),
            metadata=Shares(share(), share(), share()),
            kinds=tuple(kind for kind in KINDS if random.random() < 0.35),
            pause_s_mean=random.choice((0.3, 1.0, 3.0)),
            forgets=random.random() < FORGETS_SHARE,
        )

    @property
    def loses_every_push(self) -> bool:
        return self.notice_share == 1.0 and self.notice_fates == ("lost",)

    def network_s(self) -> float:
        return self.random.expovariate(1 / (self.network_s_mean if self.active else NETWORK_S))

    def split(self, size: int) -> int:
        """Where a piece of data is cut into two; 0: nowhere."""
        if not self.active or size < 2 or self.random.random() >= self.split_share:
            return 0
        return self.random.randrange(1, size)

    def fate(self, shares: Shares) -> Fate:
        random = self.random
        before_s, after_s = random.expovariate(1 / REMOTE_S), random.expovariate(1 / REMOTE_S)
        if not self.active:
            return Fate(before_s, after_s)
        if random.random() < shares.slow:
            before_s += min(random.expovariate(1 / SLOW_S), SLOW_S_MAX)
        if random.random() < shares.slow:
            after_s += min(random.expovariate(1 / SLOW_S), SLOW_S_MAX)
        outcome: Outcome = "done"
        if random.random() < shares.lost:
            outcome = "lost"
        elif random.random() < shares.unanswered:
            outcome = "unanswered"
        elif random.random() < shares.torn:
            outcome = "torn"
        return Fate(before_s, after_s, outcome)

    def describe(self) -> str:
        return (
            f"network {self.network_s_mean * 1000:g} ms, notices {self.notice_share:g}, storage {self.storage}, "
            f"metadata {self.metadata}, {', '.join(self.kinds) or 'no'} events each {self.pause_s_mean:g} s"
        )
