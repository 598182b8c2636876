"""How much a run measures: sizes, durations, and the parameters that are the same for every system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

SECTIONS = ("serving", "readers", "overhead", "inserting", "collections", "indexes")
SYSTEMS = ("milvus", "standalone", "cluster")

LIMIT = 10  # neighbours asked for
INDEX = "HNSW"
BUILD = {"M": 16, "efConstruction": 200}
SEARCH = {"ef": 64}


@dataclass(frozen=True, slots=True)
class Point:
    """One load on a system: `workers` clients, each with one request of `nq` queries in flight."""

    row: str
    workers: int
    nq: int = 1
    percent: int = 100  # of the rows, that pass the filter; 100: no filter
    consistency: str = "Bounded"

    @property
    def filter(self) -> str:
        return "" if self.percent == 100 else f"n < {self.percent}"


POINTS = (
    Point("nq=1, 1 worker", 1),
    Point("nq=1, 4 workers", 4),
    Point("nq=1, 16 workers", 16),
    Point("nq=100, 1 worker", 1, nq=100),
    Point("nq=100, 4 workers", 4, nq=100),
    Point("filter 50 %, 4 workers", 4, percent=50),
    Point("filter 10 %, 4 workers", 4, percent=10),
    Point("filter 1 %, 4 workers", 4, percent=1),
    Point("Strong, 1 worker", 1, consistency="Strong"),
)
QUICK_ROWS = ("nq=1, 1 worker", "nq=1, 4 workers", "nq=100, 1 worker", "filter 10 %, 4 workers", "Strong, 1 worker")


@dataclass(frozen=True, slots=True)
class Settings:
    """A full run: about 25 minutes on two cores."""

    rows: int = 200_000  # of the synthetic data
    rounds: int = 3  # of starting each system and measuring all points; figures are their medians
    rounds_real: int = 2  # likewise, on the real data
    seconds: float = 2.0  # of one point
    warm_s: float = 0.7  # before it
    points: tuple[Point, ...] = POINTS
    readers: tuple[int, ...] = (1, 2, 3)
    insert_workers: int = 2
    insert_batch: int = 5_000
    steady_rows_s: int = 1_000  # inserted while searches run ...
    steady_s: float = 20.0  # ... for that long, with a flush ...
    flush_every_s: float = 5.0
    collections: tuple[int, ...] = (1, 10, 100, 1_000)
    collections_s: float = 45.0  # a system that needs longer to create them stops there
    index_seconds: float = 0.5  # of one setting of one kind


def full(rows: int | None, rounds: int | None, seconds: float | None) -> Settings:
    """The defaults, but for what is given."""
    default = Settings()
    return replace(
        default,
        rows=rows or default.rows,
        rounds=rounds or default.rounds,
        rounds_real=rounds or default.rounds_real,
        seconds=seconds or default.seconds,
    )


def quick(rows: int | None, rounds: int | None, seconds: float | None) -> Settings:
    """A few minutes, synthetic data only: too short to be quoted, long enough to see that all of it works."""
    few = tuple(point for point in POINTS if point.row in QUICK_ROWS)
    return Settings(
        rows=rows or 20_000,
        rounds=rounds or 1,
        rounds_real=0,
        seconds=seconds or 1.0,
        warm_s=0.3,
        points=few,
        readers=(1, 2),
        steady_s=5.0,
        flush_every_s=2.0,
        collections=(1, 10),
        collections_s=15.0,
        index_seconds=0.1,
    )


def described(settings: Settings) -> dict[str, Any]:
    """All of it, for the record of a run."""
    shown = {name: getattr(settings, name) for name in Settings.__slots__ if name != "points"}
    return shown | {"limit": LIMIT, "index": INDEX, "build": BUILD, "search": SEARCH}
