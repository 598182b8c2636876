"""What came out: one record per measurement, in the order in which they were made, and where and with what.

A figure measured in several rounds has several records; `Results.figures` gives their medians, `Results.ratio` the
median of what one system has of another's in the same round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.milvus import VERSION

PACKAGES = ("mishards", "pymilvus", "faiss-cpu", "grpcio", "numpy", "pyarrow", "uvloop")


@dataclass(frozen=True, slots=True)
class Record:
    """Figures of one row of one table. `system`: who was measured, or an index kind."""

    section: str
    data: str
    system: str
    row: str
    figures: dict[str, float | None]


@dataclass(slots=True)
class Results:
    """All of a run. Written as JSON after each section, so that a run that breaks off leaves what it has."""

    about: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, section: str, data: str, system: str, row: str, **figures: float | None) -> None:
        self.records.append(Record(section, data, system, row, figures))

    def figures(self, section: str, data: str, system: str, row: str) -> dict[str, float]:
        """Medians over the rounds; of what was not measured, nothing."""
        measured = self._rounds(section, data, system, row)
        return {name: statistics.median(values) for name, values in measured.items()}

    def ratio(self, section: str, data: str, row: str, figure: str, systems: tuple[str, str]) -> float | None:
        """The figure of the first system as a multiple of the second one's, in the median of the rounds. None: one of
        them was not measured."""
        ours, theirs = (self._rounds(section, data, system, row).get(figure, []) for system in systems)
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) if ours and theirs else None

    def _rounds(self, section: str, data: str, system: str, row: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        for record in self.records:
            if (record.section, record.data, record.system, record.row) == (section, data, system, row):
                for name, value in record.figures.items():
                    if value is not None:
                        found[name].append(value)
        return found

    def rows(self, section: str, data: str) -> list[str]:
        """The rows of a table, in the order of measurement."""
        return list(dict.fromkeys(r.row for r in self.records if (r.section, r.data) == (section, data)))

    def systems(self, section: str, data: str) -> list[str]:
        return list(dict.fromkeys(r.system for r in self.records if (r.section, r.data) == (section, data)))

    def datasets(self, section: str) -> list[str]:
        return list(dict.fromkeys(r.data for r in self.records if r.section == section))

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        records = [json.dumps(asdict(record), default=_rounded) for record in map(_short, self.records)]
        head = json.dumps({"about": self.about, "notes": self.notes}, indent=1)
        file.write_text(head[:-2] + ',\n "records": [\n  ' + ",\n  ".join(records) + "\n ]\n}\n")


def read(file: Path) -> Results:
    document = json.loads(file.read_text())
    return Results(document["about"], [Record(**record) for record in document["records"]], document["notes"])


def about(settings: dict[str, Any]) -> dict[str, Any]:
    """Machine, versions, date and settings."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {"python": platform.python_version(), "milvus": VERSION, "commit": _commit()}
        | {name: version(name) for name in PACKAGES},
        "settings": settings,
    }


def _short(record: Record) -> Record:
    figures = {name: None if value is None else _rounded(value) for name, value in record.figures.items()}
    return Record(record.section, record.data, record.system, record.row, figures)


def _rounded(value: Any) -> float:
    """Five digits: more would be noise."""
    return float(f"{float(value):.5g}")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
