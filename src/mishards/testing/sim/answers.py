"""What an answer may be: exactly the rows of one version, and of none older than its consistency level allows (P10).

An answer does not say its version; that it equals some version that is new enough, and not newer than the newest, is
all that a client can know, and all that is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mishards.model import CollectionId, Consistency
from mishards.proxy.requests import QueryResult, SearchResult
from mishards.testing.sim.drawn import BOUND_S
from mishards.testing.sim.loop import START_S
from mishards.testing.sim.node import Node
from mishards.testing.sim.oracle import GROUP, TAG, Fold, History, Row, difference

if TYPE_CHECKING:
    from mishards.testing.sim.world import World

Readable = frozenset[int]  # partitions
Expected = Callable[[Fold, Readable], object]  # the answer at that state

HUNG_S_MAX = 10.0  # a question to the metadata service, with pauses of the process that asks


@dataclass(slots=True)
class Session:
    """What a client has seen, by collection: the newest timestamp, and the oldest version that it stands for."""

    ts: dict[str, int] = field(default_factory=dict)

    def saw(self, name: str, ts: int) -> None:
        self.ts[name] = max(ts, self.ts.get(name, 0))


@dataclass(slots=True)
class Asked:
    """A read: what was known when it was asked."""

    name: str
    id: CollectionId  # what had the name
    level: Consistency
    guarantee_ts: int
    oldest: int  # version of that that may be answered
    since_s: float  # definitions that held since then may be answered by
    began_s: float
    proxy: str
    lost: bool  # it took the metadata service for lost then
    group: int | None = None  # only rows of that group ...
    partition: str = ""  # ... and that partition
    called: str = ""  # the name that the request has
    pinned: tuple[int, Readable] | None = None  # the version that is to be answered, and the partitions it then had

    @classmethod
    def now(cls, world: World, node: Node, session: Session, name: str, level: Consistency) -> Asked:
        history = world.history(name)
        now_s = world.loop.time()
        seen_ts = session.ts.get(name, 0)
        oldest, guarantee_ts, since_s = 0, 1, world.ready_s
        if level is Consistency.STRONG:
            oldest, guarantee_ts, since_s = history.version, 0, now_s
        elif level is Consistency.SESSION:
            guarantee_ts = seen_ts or 1
            oldest = max((commit.version for commit in history.commits if commit.ts <= seen_ts), default=0)
            since_s = world.definitions.defined[history.id].states[0].since_s if oldest else world.ready_s
        elif level is Consistency.BOUNDED:
            guarantee_ts, oldest = 2, history.version_at(now_s - BOUND_S)
            since_s = max(world.ready_s, now_s - BOUND_S)
        return cls(name, history.id, level, guarantee_ts, oldest, since_s, now_s, node.name, node.server.metadata_lost)

    def wants(self, row: Row, readable: Readable) -> bool:
        """Whether the answer holds the row."""
        return row.partition in readable and self.group in (None, row.group)

    def __str__(self) -> str:
        only = "" if self.group is None else f" g={self.group}"
        return f"{self.name}/{self.partition}{only} {self.level.name} >= {self.oldest}"


def check_search(world: World, asked: Asked, result: SearchResult, query: tuple[float, float], limit: int) -> int:
    """The newest version whose answer this may be; a violation if there is none."""
    assert result.rows is not None
    keys = [int(key) for key in result.keys]
    columns = (result.rows.column(name).to_pylist() for name in (TAG, GROUP))
    found = list(zip(keys, zip(*columns, strict=True), result.scores.tolist(), strict=True))

    def expected(fold: Fold, readable: Readable) -> list[tuple[int, tuple[int, int], float]]:
        rows = ((key, row) for key, row in fold.items() if asked.wants(row, readable))
        hits = [(_distance(row, query), key, (row.tag, row.group)) for key, row in rows]
        return [(key, row, score) for score, key, row in sorted(hits)[:limit]]

    return _version_of(world, asked, f"search k={limit}", found, expected)


def check_query(world: World, asked: Asked, result: QueryResult) -> int:
    assert result.rows is not None
    columns = (result.rows.column(name).to_pylist() for name in ("100", TAG, GROUP))
    found = [(key, (tag, group)) for key, tag, group in zip(*columns, strict=True)]

    def expected(fold: Fold, readable: Readable) -> list[tuple[int, tuple[int, int]]]:
        return [(key, (row.tag, row.group)) for key, row in sorted(fold.items()) if asked.wants(row, readable)]

    return _version_of(world, asked, "query", found, expected)


def check_count(world: World, asked: Asked, count: int) -> int:
    def expected(fold: Fold, readable: Readable) -> int:
        return sum(asked.wants(row, readable) for row in fold.values())

    return _version_of(world, asked, "count", count, expected)


def _version_of(world: World, asked: Asked, what: str, found: object, expected: Expected) -> int:
    history = world.oracle.history_of(asked.id)
    oldest, since_s = asked.oldest, asked.since_s
    failed_s = world.metadata.failed_s.get(asked.proxy, 0.0)
    if asked.level is Consistency.BOUNDED and failed_s > asked.began_s - _patience_s(world, asked):
        oldest, since_s = 0, world.ready_s  # the proxy went on with what it knew while nothing answered it (P14)
    if asked.began_s <= history.fell_back_s:
        oldest = 0  # what it was to see may be forgotten by now
    for candidate, readables in _candidates(world, asked, since_s):
        first, last = oldest if candidate is history else 0, candidate.version
        if asked.pinned is not None:
            first = last = asked.pinned[0]
        for readable in readables:
            for version in range(min(last, candidate.version), first - 1, -1):  # a snapshot may be forgotten
                if expected(candidate.folds[version], readable) == found:
                    return version
            forgotten = candidate.lost_folds if _may_be_forgotten(asked, candidate) else []
            if any(expected(fold, readable) == found for fold in forgotten):
                return asked.oldest
    _violated(world, asked, what, found, expected)
    return asked.oldest


def _candidates(world: World, asked: Asked, since_s: float) -> Iterator[tuple[History, Iterable[Readable]]]:
    """What the name may have meant, and which partitions may have been looked at; the newest first."""
    if asked.pinned is not None:
        yield world.oracle.history_of(asked.id), [asked.pinned[1]]
        return
    for id, defined in world.definitions.named(asked.name):
        states = defined.during(since_s, world.loop.time())
        readables = (state.readable(asked.partition) for state in states)
        yield world.oracle.history_of(id), dict.fromkeys(each for each in readables if each is not None)


def _violated(world: World, asked: Asked, what: str, found: object, expected: Expected) -> None:
    history = world.oracle.history_of(asked.id)
    readable = world.definitions.readable(asked.name, asked.partition)
    older = [version for version, fold in enumerate(history.folds) if expected(fold, readable) == found]
    where = f"it is that of version {older[-1]}" if older else "it is that of no version"
    freshness = {Consistency.STRONG: "I7", Consistency.SESSION: "I8", Consistency.BOUNDED: "I9"}.get(asked.level, "I5")
    world.violated(
        freshness if older else "I5",
        f"{what} of {asked} began at {asked.began_s - START_S:.3f}: {where}, newest {history.version}; "
        f"{_told(found, history.folds[-1])}",
    )


def _patience_s(world: World, asked: Asked) -> float:
    """How long after a failure the proxy may take the metadata service for lost: its next question may hang."""
    node = world.nodes.get(asked.proxy)
    lost = asked.lost or (node is not None and node.server.metadata_lost)
    return HUNG_S_MAX if lost else BOUND_S


def _may_be_forgotten(asked: Asked, history: History) -> bool:
    """Whether the proxy may answer what the metadata service forgot: it has not heard of it, and need not ask."""
    return asked.level is not Consistency.STRONG or asked.began_s <= history.fell_back_s


def _told(found: object, fold: Fold) -> str:
    if isinstance(found, list):
        keys = [each[0] for each in found]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        newest = {key: (row.tag, row.group) for key, row in fold.items()}
        return f"doubled {doubled}, {difference({each[0]: each[1] for each in found}, newest)}"
    return f"found {found}, newest has {len(fold)}"


def _distance(row: Row, query: tuple[float, float]) -> float:
    x, y = float(row.tag % 31), float(row.tag % 37)
    return (x - query[0]) ** 2 + (y - query[1]) ** 2
