"""From measurements to the page: medians, ratios, files, and what a broken-off run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import indexes, plot, report, results
from bench.data import Dataset
from bench.results import Results
from bench.settings import SYSTEMS, quick

SPEED = {"p50_ms": 1.0, "p99_ms": 2.0, "recall": 0.98, "errors": 0.0, "wrong": 0.0}
COST = {"server_cpu_ms": 0.5, "client_cpu_ms": 0.4}


def _about() -> dict[str, Any]:
    return results.about(
        {"index": "HNSW", "build": {"M": 16}, "search": {"ef": 64}, "limit": 10, "rounds": 3, "rounds_real": 2}
    )


@pytest.fixture
def found() -> Results:
    """Three rounds, in which Milvus answers 1,000 searches a second, and the others 2,000."""
    made = Results(_about())
    for system in SYSTEMS:
        for noise in (0.5, 1.0, 3.0):
            qps = noise * (1_000 if system == "milvus" else 2_000)
            made.add("serving", "clustered", system, "nq=1, 4 workers", qps=qps, **SPEED, **COST)
        made.add("serving", "clustered", system, "restart", seconds=8.0 if system == "milvus" else 2.0)
    return made


def test_figures_are_medians_of_the_rounds(found: Results) -> None:
    """A slow and a lucky round change nothing."""
    assert found.figures("serving", "clustered", "milvus", "nq=1, 4 workers")["qps"] == 1_000
    assert found.figures("serving", "clustered", "milvus", "never measured") == {}


@pytest.mark.parametrize(("title", "times"), [("QPS, nq=1, 4 workers", 2.0), ("start to first right answer", 4.0)])
def test_ratios_say_how_many_times_better(found: Results, title: str, times: float) -> None:
    """More searches a second and fewer seconds to start are both a ratio above 1."""
    (line,) = (line for line in report.MAIN if line.title == title)

    assert report.ratios(found, "clustered", line) == {"standalone": times, "cluster": times}


def test_ratios_come_first_on_the_page(found: Results) -> None:
    """The first table begins with the ratios; sections that were not measured are left out."""
    page = report.page(found, None)

    assert "| QPS, nq=1, 4 workers | **2.00** | **2.00** | 2,000/s | 2,000/s | 1,000/s |" in page
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## clustered: times better than Milvus",
        "## clustered: loads, in full",
    ]


def test_results_are_read_as_they_were_written(found: Results, tmp_path: Path) -> None:
    """The JSON has machine, versions, date and settings, and everything of the page can be made from it."""
    found.notes.append("a note")
    found.write(tmp_path / "some.json")

    again = results.read(tmp_path / "some.json")

    assert report.page(again, None) == report.page(found, None)
    about = json.loads((tmp_path / "some.json").read_text())["about"]
    assert {"date", "machine", "versions", "settings"} == set(about)
    assert {"cpu", "cores", "memory_gib", "system"} == set(about["machine"])


def test_the_picture_needs_milvus(found: Results, tmp_path: Path) -> None:
    """Without Milvus there is nothing to compare with, and no picture."""
    found.records = [record for record in found.records if record.system != "milvus"]

    assert not plot.draw(found, tmp_path / "none.svg")
    assert "times better" in report.page(found, None)


def test_the_picture_is_drawn(found: Results, tmp_path: Path) -> None:
    """With Milvus, an SVG file is written."""
    pytest.importorskip("matplotlib", reason="comes with the extra `bench`")

    assert plot.draw(found, tmp_path / "some.svg")
    assert "<svg" in (tmp_path / "some.svg").read_text()


@pytest.mark.parametrize("name", ["FLAT", "HNSW", "IVF_FLAT"])
def test_index_kinds_are_measured(name: str, small: Dataset, tmp_path: Path) -> None:
    """A kind is built, loaded and searched through the plug-in door, and its row can be shown."""
    figures = indexes.figures_of(indexes.plugins.load("index", name), small, quick(None, None, 0.2), tmp_path / "index")
    made = Results(_about())
    made.add("indexes", "clustered", name, "index", **figures)

    assert figures["recall_100"] is not None and figures["recall_100"] > 0.5
    assert figures["qps_0.95"]
    assert f"| {name} |" in report.page(made, None)
