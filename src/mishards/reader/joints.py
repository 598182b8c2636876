"""Which sources without an index are searched together, and through which interim index (P9).

What a search spends on each source is mostly Python, so all small ones share one call of FAISS. An interim index is
made in a thread (`nursery.py`) for the sources that a search named; later searches, which name newer versions of them,
use it too: rows that came since have no codes and are scored, and codes of what is not named any more are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from mishards.index.interim import Codebook, Coded, Covering, Interim, Part
from mishards.ports import Matrix
from mishards.reader.interims import Interims, Key
from mishards.reader.source import Source

FLOATS_MIN = 1 << 18  # of sources together; fewer are scanned as they are
FLOATS_MAX = 32 << 20  # of one source: half a second of encoding, 0.2 ms of scanning; more wait for the builder's index
JOINED_FLOATS_MAX = 16 << 20  # of several: codes and vectors are copied whenever enough rows have come
LAG_ROWS_MIN = 512  # rows without a code until that is worth it ...
LAG_SHARE = 1 / 64  # ... or that share of those with one
NEW_ROWS_MAX = 1024  # a source without any code is scored row by row up to it, beyond by matrix products
OTHERS_MAX = 0.5  # of the codes of an interim index may be of rows that a search does not ask for ...
OTHERS_KEPT = 0.25  # ... but with so many another one is made, without them
DEAD_KEPT = 0.1  # of a source's rows may be coded though nobody asks for them; of more none is
KEPT_MAX = 64  # interim indexes of a collection; sets of sources differ by the partitions that searches name
PLANS_MAX = 4  # kept: searches name the newest version, or the one before for a moment


class Group(NamedTuple):
    """Sources, by their numbers in a search, that are searched through one index."""

    members: tuple[int, ...]
    covering: Covering


class Plan(NamedTuple):
    """How to search the sources that have no index; those in no group exactly. `wanted`: the groups, by numbers, that
    deserve a better interim index than they have."""

    groups: tuple[Group, ...] = ()
    wanted: tuple[tuple[int, ...], ...] = ()


NO_PLAN = Plan()


class Joint(NamedTuple):
    """An interim index, and the number in it of what is coded of each source."""

    interim: Interim
    numbers: WeakKeyDictionary[Interims, int]
    sources: int  # it was made of; of some nothing may be left

    def coded(self, source: Source) -> int:
        """How many rows of the source have a code, in some version of it."""
        number = self.numbers.get(source.interims)
        return 0 if number is None else len(self.interim.rows_of[number])


class Joints:
    """The interim indexes of one collection. Belongs to the event loop."""

    def __init__(self) -> None:
        self._joints: dict[Key, list[Joint]] = {}
        self._plans: list[tuple[Sequence[Source], Key, int, Plan]] = []  # the newest first

    @property
    def bytes(self) -> int:
        return sum(joint.interim.bytes for joints in self._joints.values() for joint in joints)

    def plan(self, sources: Sequence[Source], key: Key, index_id: int, dim: int) -> Plan:
        """Of a search through that index; kept for the searches that follow over the same list."""
        for known, known_key, known_index, plan in self._plans:
            if known is sources and known_key == key and known_index == index_id:
                return plan
        self._joints = {key: [joint for joint in joints if joint.numbers] for key, joints in self._joints.items()}
        bare = [
            number for number, source in enumerate(sources) if source.index(index_id) is None and source.alive_count
        ]
        plan = self._planned(sources, key, bare, dim) if bare else NO_PLAN
        self._plans = [(sources, key, index_id, plan), *self._plans[: PLANS_MAX - 1]]
        return plan

    def add(self, key: Key, joint: Joint) -> None:
        """A new one, in place of those that it covers and those of which something is gone."""
        kept = [
            other
            for other in self._joints.get(key, [])
            if len(other.numbers) == other.sources and not all(origin in joint.numbers for origin in other.numbers)
        ]
        self._joints[key] = [*kept[1 - KEPT_MAX :], joint]
        self._plans = []

    def forget_plans(self) -> None:
        """Let go of the sources they are for."""
        self._plans.clear()

    def _planned(self, sources: Sequence[Source], key: Key, bare: Sequence[int], dim: int) -> Plan:
        groups, wanted = [], []
        for members in together([(number, sources[number].alive_count * dim) for number in bare]):
            named = [sources[number] for number in members]
            joint = self._joint(key, named)
            if joint is None:
                wanted.append(members)
                continue
            covered = [
                (number, source)
                for number, source in zip(members, named, strict=True)
                if source.interims in joint.numbers or source.alive_count <= NEW_ROWS_MAX
            ]
            parts = [
                Part(source.prepared(*key), source.alive, joint.numbers.get(source.interims)) for _, source in covered
            ]
            covering = joint.interim.over(parts)
            groups.append(Group(tuple(number for number, _ in covered), covering))
            if len(covered) < len(named) or _lags(covering, joint.interim.rows):
                wanted.append(members)
        return Plan(tuple(groups), tuple(wanted))

    def _joint(self, key: Key, named: Sequence[Source]) -> Joint | None:
        """The one with most codes of these sources, if not too many are of others."""
        best, most = None, 0
        for joint in self._joints.get(key, ()):
            coded = sum(joint.coded(source) for source in named)
            if coded > most and coded >= (1 - OTHERS_MAX) * joint.interim.rows:
                best, most = joint, coded
        return best


def _lags(covering: Covering, rows: int) -> bool:
    """Whether one that is better than this, with codes of so many rows, is worth its time."""
    if covering.late >= max(LAG_ROWS_MIN, LAG_SHARE * covering.coded):
        return True
    return covering.coded < (1 - OTHERS_KEPT) * rows


def together(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Groups of sources (number, floats) that deserve an interim index: large ones alone, of others the smallest."""
    groups: list[tuple[int, ...]] = [(number,) for number, floats in sizes if JOINED_FLOATS_MAX < floats <= FLOATS_MAX]
    members: list[int] = []
    total = 0
    for number, floats in sorted(sizes, key=lambda entry: entry[1]):
        if floats > JOINED_FLOATS_MAX:
            continue
        if total + floats > JOINED_FLOATS_MAX:
            groups.append(tuple(members))
            members, total = [], 0
        members.append(number)
        total += floats
    if total > FLOATS_MIN:
        groups.append(tuple(members))
    return groups


def made(key: Key, sources: Sequence[Source]) -> Joint:
    """An interim index over the rows of these sources. CPU-bound, up to a second; one call at a time."""
    matrices = [source.prepared(*key) for source in sources]
    book = _book(key, sources, matrices)
    coded: list[Coded] = []
    numbers: WeakKeyDictionary[Interims, int] = WeakKeyDictionary()
    for source, ready in zip(sources, matrices, strict=True):
        rows = None
        if source.alive is not None and source.alive_count < (1 - DEAD_KEPT) * source.rows:
            rows = np.flatnonzero(source.alive)
        numbers[source.interims] = len(coded)
        coded.append(Coded(ready, source.interims.codes(key, book, ready), rows))
    return Joint(Interim(book, coded, key[1]), numbers, len(coded))


def _book(key: Key, sources: Sequence[Source], matrices: Sequence[Matrix]) -> Codebook:
    """The one that most rows are coded with, if it suits the others too."""
    largest = max(sources, key=lambda source: source.interims.rows(key))
    book = largest.interims.book(key)
    if book is not None:
        new = [
            ready[source.interims.rows(key) if source.interims.book(key) is book else 0 :]
            for source, ready in zip(sources, matrices, strict=True)
        ]
        if book.suits(sum(map(len, matrices)), new):
            return book
    return Codebook(matrices, key[1])
