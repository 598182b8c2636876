"""An answer against the ledger: everything there exactly once, nothing older than it may be, nothing from the dead.

The number and the score of each hit must belong together, whatever index it came from. Rows of one write to one shard
are seen together (I10). A Session never goes back (I8). What a failed write left behind may be found or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from mishards.schema.keys import shard_of
from tools.census.ledger import Ledger, Op, took_effect_late, twice

SCORE_ERROR = 1e-3  # relative; scores are float32
SHOWN_KEYS = 4


class Hit(NamedTuple):
    """One row of an answer. Queries have no score."""

    key: int
    number: int
    score: float | None


class Asking(NamedTuple):
    """One read. `acknowledged_by_s`: it must see the writes acknowledged by then; Strong: until it began."""

    what: str
    began_s: float
    ended_s: float
    acknowledged_by_s: float
    strong: bool


@dataclass
class Judge:
    """Judges the answers of one session: with `monotonic`, no later read may find an earlier write of a key."""

    ledger: Ledger
    monotonic: bool
    blame: Callable[[str], None]  # gets each violation
    late: Callable[[Op], None]  # gets each write that took effect after a later one, or after it was surely not there
    _seen: dict[int, int] = field(default_factory=dict)  # by key, the number of the newest write found

    def __post_init__(self) -> None:
        self._shard = shard_of(pa.array(self.ledger.keys, pa.int64()), self.ledger.shards).tolist()

    def judge(self, asking: Asking, hits: Sequence[Hit]) -> None:
        """Blames all that is wrong with the answer."""
        ledger, numbers = self.ledger, {hit.key: hit.number for hit in hits}
        strangers = [hit.key for hit in hits if hit.key not in ledger.ops or hit.number not in ledger.by_number]
        if strangers:
            self._blame(asking, "rows that nobody wrote", strangers, numbers)
            return
        self._blame_any(asking, "keys twice", twice([hit.key for hit in hits]), numbers)
        self._blame_any(asking, "always there, now missing", [k for k in ledger.steady if k not in numbers], numbers)
        absent = [k for k in ledger.flickering if k not in numbers and not self._may_be_absent(k, asking)]
        self._blame_any(asking, "wrongly absent", absent, numbers)
        self._blame_any(
            asking, "of a wrong write", [k for k in numbers if not self._may_be(k, numbers[k], asking)], numbers
        )
        self._blame_any(
            asking, "with the vector of another write", [h.key for h in hits if not self._scored(h)], numbers
        )
        self._blame_any(asking, "of a write that is seen in part", self._torn(numbers), numbers)
        self._remember(asking, numbers)

    def judge_count(self, asking: Asking, count: int) -> None:
        """A Strong count against what may be there."""
        least = most = len(self.ledger.steady)
        for key in self.ledger.flickering:
            floor = self.ledger.floor(key, asking.acknowledged_by_s)
            ops = (*self.ledger.since(key, floor), *self.ledger.failed_before(key, floor))
            possible = {not op.deletes for op in ops}
            if floor is None:
                possible.add(False)
            most += True in possible
            least += False not in possible
        if not least <= count <= most:
            self.blame(f"{asking.what} {self.ledger.name}: {count} rows, not {least} to {most}")

    # -------------------------------------------------------------------------------------------------- one key

    def _may_be(self, key: int, number: int, asking: Asking) -> bool:
        floor = self._floor(key, asking)
        if floor is None or number >= floor.number:
            return True
        op = self.ledger.by_number[number]
        if not took_effect_late(op, floor):
            return False
        self.late(op)
        return True

    def _may_be_absent(self, key: int, asking: Asking) -> bool:
        floor = self._floor(key, asking)
        if floor is None or any(op.deletes for op in self.ledger.since(key, floor)):
            return True
        failed = [op for op in self.ledger.failed_before(key, floor) if op.deletes]
        for op in failed:
            self.late(op)
        return bool(failed)

    def _floor(self, key: int, asking: Asking) -> Op | None:
        """The last write that the read must see: acknowledged in time, or seen by this session before."""
        floor, seen = self.ledger.floor(key, asking.acknowledged_by_s), self._seen.get(key)
        if seen is None or (floor is not None and floor.number >= seen):
            return floor
        return self.ledger.by_number[seen]

    def _scored(self, hit: Hit) -> bool:
        right = self.ledger.by_number[hit.number].scores.get(hit.key)
        if right is None:
            return False
        return hit.score is None or abs(hit.score - right) <= SCORE_ERROR * right

    # -------------------------------------------------------------------------------------------------- whole writes

    def _torn(self, numbers: dict[int, int]) -> list[int]:
        """Keys that show an older write than a neighbour of the same write and shard does."""
        torn = []
        for number in set(numbers.values()):
            op = self.ledger.by_number[number]
            shown = {self._shard[key] for key in op.keys if numbers.get(key) == number}
            torn += [k for k in op.keys if self._shard[k] in shown and self._is_before(k, numbers.get(k), number)]
        return torn

    def _is_before(self, key: int, found: int | None, number: int) -> bool:
        if found is None:
            return not any(op.deletes and (op.number > number or _is_unknown(op)) for op in self.ledger.ops[key])
        return found < number and not _is_unknown(self.ledger.by_number[found])

    # -------------------------------------------------------------------------------------------------- what is kept

    def _remember(self, asking: Asking, numbers: dict[int, int]) -> None:
        for key, number in numbers.items():
            op = self.ledger.by_number[number]
            op.seen_s = op.seen_s or asking.ended_s
            if key in op.missed:
                self.late(op)
            if asking.strong:
                _miss(key, itertools.takewhile(op.is_before, reversed(self.ledger.ops[key])), asking.began_s)
        if self.monotonic:
            self._remember_session(asking, numbers)

    def _remember_session(self, asking: Asking, numbers: dict[int, int]) -> None:
        """Of an absent key, the oldest delete that explains it, unless it need not have been there yet."""
        for key in self.ledger.keys:
            seen = numbers.get(key, 0)
            floor = self._floor(key, asking)
            if key not in numbers and floor is not None and not floor.deletes:
                later = self.ledger.since(key, floor)
                seen = min((op.number for op in later if op.deletes), default=0)
            if seen > self._seen.get(key, 0):
                self._seen[key] = seen

    def _blame_any(self, asking: Asking, what: str, keys: list[int], numbers: dict[int, int]) -> None:
        if keys:
            self._blame(asking, what, keys, numbers)

    def _blame(self, asking: Asking, what: str, keys: list[int], numbers: dict[int, int]) -> None:
        lines = [f"{asking.what} {self.ledger.name}: {len(keys)} keys {what}: {keys[:40]}"]
        lines += [f"  key {key}: {self._told(key, numbers, asking.began_s)}" for key in keys[:SHOWN_KEYS]]
        self.blame("\n".join(lines))

    def _told(self, key: int, numbers: dict[int, int], began_s: float) -> str:
        """Its story, in seconds from the beginning of the read."""
        ops = " ".join(_story(op, began_s) for op in self.ledger.ops.get(key, ())[-6:])
        return f"found {numbers.get(key)}, seen {self._seen.get(key)}, shard {self._shard[key]}, writes: {ops}"


def _story(op: Op, began_s: float) -> str:
    end = "pending"
    if op.acknowledged_s is not None:
        end = f"acknowledged {op.acknowledged_s - began_s:+.2f}"
    elif op.failed_s is not None:
        end = f"failed {op.failed_s - began_s:+.2f}"
    return f"[{op.number} {op.what} began {op.began_s - began_s:+.2f} {end}]"


def _is_unknown(op: Op) -> bool:
    return op.acknowledged_s is None


def _miss(key: int, later: Iterable[Op], began_s: float) -> None:
    """Note of writes that had failed before the Strong read began that it did not find them. The other shard's part of
    the same write may be there."""
    for op in later:
        if not op.deletes and op.failed_s is not None and op.failed_s < began_s:
            op.missed.add(key)
