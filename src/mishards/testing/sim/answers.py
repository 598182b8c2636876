"""What an answer may be: exactly the rows of one version, and of none older than its consistency level allows (P10).

An answer does not say its version; that it equals some version that is new enough, and not newer than the newest, is
all that a client can know, and all that is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mishards.model import Consistency
from mishards.proxy.requests import QueryResult, SearchResult
from mishards.testing.sim.drawn import BOUND_S
from mishards.testing.sim.loop import START_S
from mishards.testing.sim.node import Node
from mishards.testing.sim.oracle import GROUP, TAG, Fold, History, Row, difference

if TYPE_CHECKING:
    from mishards.testing.sim.world import World

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
    level: Consistency
    guarantee_ts: int
    oldest: int  # version that may be answered
    began_s: float
    proxy: str
    group: int | None = None  # only rows of that group ...
    partition: str = ""  # ... and that partition
    newest: int | None = None  # version that may be answered; None: the newest

    @classmethod
    def now(cls, world: World, node: Node, session: Session, name: str, level: Consistency) -> Asked:
        history = world.history(name)
        now_s = world.loop.time()
        seen_ts = session.ts.get(name, 0)
        oldest, guarantee_ts = 0, 1
        if level is Consistency.STRONG:
            oldest, guarantee_ts = history.version, 0
        elif level is Consistency.SESSION:
            guarantee_ts = seen_ts or 1
            oldest = max((commit.version for commit in history.commits if commit.ts <= seen_ts), default=0)
        elif level is Consistency.BOUNDED:
            guarantee_ts, oldest = 2, history.version_at(now_s - BOUND_S)
        return cls(name, level, guarantee_ts, oldest, now_s, node.name)

    def wanted(self, world: World) -> Callable[[Row], bool]:
        """Which rows the answer holds."""
        partition = world.partitions[self.name].get(self.partition)
        return lambda row: self.group in (None, row.group) and partition in (None, row.partition)

    def __str__(self) -> str:
        only = "" if self.group is None else f" g={self.group}"
        return f"{self.name}/{self.partition}{only} {self.level.name} >= {self.oldest}"


def check_search(world: World, asked: Asked, result: SearchResult, query: tuple[float, float], limit: int) -> int:
    """The newest version whose answer this may be; a violation if there is none."""
    assert result.rows is not None
    keys = [int(key) for key in result.keys]
    columns = (result.rows.column(name).to_pylist() for name in (TAG, GROUP))
    found = list(zip(keys, zip(*columns, strict=True), result.scores.tolist(), strict=True))
    wanted = asked.wanted(world)

    def expected(fold: Fold) -> list[tuple[int, tuple[int, int], float]]:
        hits = [(_distance(row, query), key, (row.tag, row.group)) for key, row in fold.items() if wanted(row)]
        return [(key, row, score) for score, key, row in sorted(hits)[:limit]]

    return _version_of(world, asked, f"search k={limit}", found, expected)


def check_query(world: World, asked: Asked, result: QueryResult) -> int:
    assert result.rows is not None
    columns = (result.rows.column(name).to_pylist() for name in ("100", TAG, GROUP))
    found = [(key, (tag, group)) for key, tag, group in zip(*columns, strict=True)]
    wanted = asked.wanted(world)

    def expected(fold: Fold) -> list[tuple[int, tuple[int, int]]]:
        return [(key, (row.tag, row.group)) for key, row in sorted(fold.items()) if wanted(row)]

    return _version_of(world, asked, "query", found, expected)


def check_count(world: World, asked: Asked, count: int) -> int:
    wanted = asked.wanted(world)
    return _version_of(world, asked, "count", count, lambda fold: sum(wanted(row) for row in fold.values()))


def _version_of(world: World, asked: Asked, what: str, found: object, expected: Callable[[Fold], object]) -> int:
    history = world.history(asked.name)
    oldest = asked.oldest
    failed_s = world.metadata.failed_s.get(asked.proxy, 0.0)
    if asked.level is Consistency.BOUNDED and failed_s > asked.began_s - _patience_s(world, asked):
        oldest = 0  # the proxy went on with what it knew while the metadata service did not answer it (P14)
    if asked.began_s <= history.fell_back_s:
        oldest = 0  # what it was to see may be forgotten by now
    newest = history.version if asked.newest is None else asked.newest
    for version in range(newest, oldest - 1, -1):
        if expected(history.folds[version]) == found:
            return version
    if _may_be_forgotten(asked, history) and any(expected(fold) == found for fold in history.lost_folds):
        return asked.oldest
    older = [version for version in range(oldest) if expected(history.folds[version]) == found]
    where = f"it is that of version {older[-1]}" if older else "it is that of no version"
    freshness = {Consistency.STRONG: "I7", Consistency.SESSION: "I8", Consistency.BOUNDED: "I9"}.get(asked.level, "I5")
    world.violated(
        freshness if older else "I5",
        f"{what} of {asked} began at {asked.began_s - START_S:.3f}: {where}, newest {history.version}; "
        f"{_told(found, history.folds[-1])}",
    )
    return asked.oldest


def _patience_s(world: World, asked: Asked) -> float:
    """How long after a failure the proxy may take the metadata service for lost: its next question may hang."""
    node = world.nodes.get(asked.proxy)
    return HUNG_S_MAX if node is not None and node.server.metadata_lost else BOUND_S


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
