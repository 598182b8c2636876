"""Which sources without an index are searched together, and through which interim index (P9).

What a search spends on each source is mostly Python, so all small ones share one scan of codes. An interim index is
made in a thread (`nursery.py`) for the sources that a search named; later searches, which name newer versions of them,
use it too: rows that came since have no codes and are scored, and codes of what is not named any more are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from mishards.index.interim import Codebook, Codes, Covering, Interim, Part
from mishards.ports import Matrix
from mishards.reader.interims import Interims, Key
from mishards.reader.source import Source

FLOATS_MIN = 1 << 18  # of sources together; fewer are scanned as they are
FLOATS_MAX = 32 << 20  # of one source: half a second of encoding, 0.2 ms of scanning; more wait for the builder's index
JOINED_FLOATS_MAX = 16 << 20  # of several: their codes are copied whenever enough rows have come
LAG_ROWS_MIN = 256  # rows without a code until that is worth it ...
LAG_SHARE = 1 / 128  # ... or that share of those with one
NEW_ROWS_MAX = 1024  # a source without any code is scored row by row up to it, beyond by matrix products
OTHERS_MAX = 0.5  # of the codes of an interim index may be of sources that a search does not name ...
OTHERS_KEPT = 0.25  # ... but with so many another one is made
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
    """An interim index, and where in it the codes of each source are: start and count."""

    interim: Interim
    spans: WeakKeyDictionary[Interims, tuple[int, int]]
    sources: int  # it was made of; of some nothing may be left


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
        bare = [number for number, source in enumerate(sources) if source.index(index_id) is None]
        plan = self._planned(sources, key, bare, dim) if bare else NO_PLAN
        self._plans = [(sources, key, index_id, plan), *self._plans[: PLANS_MAX - 1]]
        return plan

    def add(self, key: Key, joint: Joint) -> None:
        """A new one, in place of those that it covers and those of which something is gone."""
        kept = [
            other
            for other in self._joints.get(key, [])
            if len(other.spans) == other.sources and not all(origin in joint.spans for origin in other.spans)
        ]
        self._joints[key] = [*kept[1 - KEPT_MAX :], joint]
        self._plans = []

    def forget_plans(self) -> None:
        """Let go of the sources they are for."""
        self._plans.clear()

    def _planned(self, sources: Sequence[Source], key: Key, bare: Sequence[int], dim: int) -> Plan:
        groups, wanted = [], []
        for members in together([(number, sources[number].rows * dim) for number in bare]):
            named = [sources[number] for number in members]
            joint = self._joint(key, named)
            if joint is None:
                wanted.append(members)
                continue
            spans = [_span(joint, source) for source in named]
            covered = [
                (number, source, span)
                for number, source, span in zip(members, named, spans, strict=True)
                if span[1] or source.rows <= NEW_ROWS_MAX
            ]
            parts = [Part(*span, source.prepared(*key)) for _, source, span in covered]
            groups.append(Group(tuple(number for number, _, _ in covered), joint.interim.over(parts)))
            if _lags(joint, sum(source.rows for source in named), sum(span[1] for span in spans)):
                wanted.append(members)
        return Plan(tuple(groups), tuple(wanted))

    def _joint(self, key: Key, named: Sequence[Source]) -> Joint | None:
        """The one with most codes of these sources, if not too many are of others."""
        best, most = None, 0
        for joint in self._joints.get(key, ()):
            coded = sum(_span(joint, source)[1] for source in named)
            if coded > most and coded >= (1 - OTHERS_MAX) * joint.interim.rows:
                best, most = joint, coded
        return best


def _span(joint: Joint, source: Source) -> tuple[int, int]:
    """Where the codes of the source are. None of an older version than they are of, which has fewer rows."""
    start, count = joint.spans.get(source.interims, (0, 0))
    return (start, count) if count <= source.rows else (0, 0)


def _lags(joint: Joint, rows: int, coded: int) -> bool:
    """Whether a new one is worth its time."""
    if rows - coded >= max(LAG_ROWS_MIN, LAG_SHARE * coded):
        return True
    return coded < (1 - OTHERS_KEPT) * joint.interim.rows


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
    """An interim index over all rows of these sources. CPU-bound, up to a second; one call at a time."""
    matrices = [source.prepared(*key) for source in sources]
    book = _book(key, sources, matrices)
    codes: list[Codes] = []
    spans: WeakKeyDictionary[Interims, tuple[int, int]] = WeakKeyDictionary()
    start = 0
    for source, ready in zip(sources, matrices, strict=True):
        codes.append(source.interims.codes(key, book, ready))
        spans[source.interims] = (start, len(ready))
        start += len(ready)
    return Joint(Interim(book, codes, key[1]), spans, len(sources))


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
