"""What was written, and so what a read may find of each key.

Every row carries the number of the write that made it. Each key has one writing thread, which waits for an answer
before it writes the key again: so the writes of a key are in order, the later the newer. A call that failed has an
unknown outcome: it may have taken effect, or not, or do so still.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Op:
    """One write: rows of its number under its keys, or their deletion. Times are monotonic."""

    number: int
    what: str
    keys: tuple[int, ...]
    began_s: float
    scores: dict[int, float] = field(default_factory=dict)  # by key: what a search from the origin gives; none deleted
    acknowledged_s: float | None = None  # None: in progress, or failed
    failed_s: float | None = None
    seen_s: float | None = None  # when an answer first had a row of it
    missed: set[int] = field(default_factory=set)  # keys that a Strong read after the failure found as before

    @property
    def deletes(self) -> bool:
        return not self.scores

    def is_before(self, other: Op) -> bool:
        return self.number < other.number

    def is_acknowledged(self, by_s: float) -> bool:
        return self.acknowledged_s is not None and self.acknowledged_s <= by_s


class Ledger:
    """The writes to one collection. `steady` keys are always there once written, `flickering` ones come and go."""

    def __init__(self, name: str, shards: int, dim: int, keys: int, steady_share: float) -> None:
        steady = int(keys * steady_share)
        self.name = name
        self.shards = shards
        self.dim = dim
        self.steady = range(steady)
        self.flickering = range(steady, keys)
        self.ops: dict[int, list[Op]] = {key: [] for key in range(keys)}
        self.by_number: dict[int, Op] = {}

    @property
    def keys(self) -> range:
        return range(len(self.ops))

    def issue(self, op: Op) -> None:
        self.by_number[op.number] = op
        for key in op.keys:
            self.ops[key].append(op)

    def floor(self, key: int, acknowledged_by_s: float) -> Op | None:
        """The oldest write whose effect a read may find that must see what was acknowledged by then; None: any, or
        nothing at all."""
        if acknowledged_by_s <= 0.0:
            return None
        return next((op for op in reversed(self.ops[key]) if op.is_acknowledged(acknowledged_by_s)), None)

    def since(self, key: int, floor: Op | None) -> Iterator[Op]:
        """The writes of the key that a read may find, the newest first."""
        return itertools.takewhile(lambda op: floor is None or op.number >= floor.number, reversed(self.ops[key]))

    def failed_before(self, key: int, floor: Op | None) -> list[Op]:
        """Earlier writes of unknown outcome, which may have taken effect late."""
        return [op for op in self.ops[key] if floor and op.number < floor.number and op.acknowledged_s is None]

    def lost(self, found: dict[int, int]) -> list[tuple[int, Op]]:
        """Keys whose last acknowledged write, by now at rest, is not what a Strong read found, nor is a later one.

        `found` is the number of the write by key."""
        lost = []
        for key in self.keys:
            floor = self.floor(key, float("inf"))
            if floor is not None and not self._is_kept(key, floor, found.get(key)):
                lost.append((key, floor))
        return lost

    def _is_kept(self, key: int, floor: Op, number: int | None) -> bool:
        if number is None:
            deletes = (*self.since(key, floor), *self.failed_before(key, floor))
            return any(op.deletes for op in deletes)
        return number >= floor.number or took_effect_late(self.by_number[number], floor)


def took_effect_late(op: Op, floor: Op) -> bool:
    """Whether the earlier write may be what is found: it failed, and no answer had it before the later one began."""
    return op.acknowledged_s is None and (op.seen_s is None or op.seen_s >= floor.began_s)


class Numbers:
    """Fresh numbers of writes, for all threads."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def draw(self) -> int:
        return next(self._next)


def rows_of(number: int, keys: Sequence[int], dim: int, seed: int) -> tuple[list[dict[str, Any]], dict[int, float]]:
    """The rows of a write and their scores: a row's length tells which write its vector is of."""
    vectors: Matrix = np.random.default_rng((seed, number)).uniform(-1, 1, (len(keys), dim)).astype(np.float32)
    rows = [{"id": key, "vector": vector, "number": number} for key, vector in zip(keys, vectors, strict=True)]
    scores = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return rows, dict(zip(keys, scores.tolist(), strict=True))


def twice(keys: Sequence[int]) -> list[int]:
    return [key for key, times in collections.Counter(keys).items() if times > 1]
