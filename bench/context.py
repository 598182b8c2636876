"""What every section of a run shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.data import Dataset
from bench.load import Workers
from bench.results import Results
from bench.settings import Settings
from bench.systems import System


@dataclass(slots=True)
class Context:
    """`folder`: for the systems' data. `loaded`: systems that hold a data set, by its name and theirs."""

    settings: Settings
    systems: tuple[str, ...]
    results: Results
    workers: Workers
    folder: Path
    say: Callable[[str], None]
    loaded: dict[tuple[str, str], System] = field(default_factory=dict)

    def home(self, data: Dataset, name: str) -> Path:
        return self.folder / data.name / name
