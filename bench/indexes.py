"""The index kinds, each alone in a process of its own, through the plug-in door and without any server.

Built on all cores, searched on one with one query at a time. QPS at a recall is that of the narrowest search that
reaches it. What a filter does is measured on the index as it is; in a server the reader searches exactly where that is
cheaper.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import settings as s
from bench.context import Context
from bench.data import PERCENTS, Dataset
from mishards import plugins
from mishards.ports import IndexKind, VectorIndex

SECTION = "indexes"
KNOBS = ("ef", "nprobe", "level")  # what makes a search wider, by kind
WIDTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TARGETS = (0.95, 0.99)
QUERIES = 500  # of which answers are compared
K_LARGE = 100
BUILD_S_MAX = 1_200.0


def measure(context: Context, data: Dataset) -> None:
    """A row for each kind that is registered."""
    for name in plugins.names("index"):
        context.say(f"{data.name}: index {name}")
        figures = _in_a_process(name, data, context.settings)
        context.results.add(SECTION, data.name, name, "index", **figures)


def _in_a_process(name: str, data: Dataset, settings: s.Settings) -> dict[str, float | None]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, name, data, settings), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(BUILD_S_MAX):
            raise TimeoutError(f"index {name} of {data.name} takes more than {BUILD_S_MAX:g} s")
        figures: dict[str, float | None] = ours.recv()
    finally:
        process.kill()
        process.join()
    return figures


def _serve(pipe: Connection, name: str, data: Dataset, settings: s.Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="mishards-bench-") as folder:
        pipe.send(figures_of(plugins.load("index", name), data, settings, Path(folder) / "index"))


def figures_of(kind: IndexKind, data: Dataset, settings: s.Settings, file: Path) -> dict[str, float | None]:
    """Build, load and search one kind. The file is written."""
    began_s = time.perf_counter()
    cores = len(os.sched_getaffinity(0))
    params = kind.check_build(s.BUILD if kind.name.startswith("HNSW") else {}, data.dim)
    kind.build(data.vectors, data.metric, params, cores, file)
    build_s = time.perf_counter() - began_s
    before_bytes = _resident_bytes()
    index = kind.load(file, data.metric, np.load(data.vectors_file, mmap_mode="r"))

    default = kind.check_search({}, s.LIMIT)
    figures: dict[str, float | None] = {
        "build_s": build_s,
        "bytes": float(index.bytes),
        "bytes_row": index.bytes / data.rows,
        "bytes_to_raw": index.bytes / data.vectors.nbytes,
        "qps": speed(index, data, default, settings.index_seconds),
    }
    for percent in PERCENTS:
        allowed = None if percent == 100 else bitmap(data.numbers < percent)
        figures[f"recall_{percent}"] = recall(index, data, s.LIMIT, default, percent, allowed)
    figures["recall_k100"] = recall(index, data, K_LARGE, kind.check_search({}, K_LARGE), 100, None)
    wide = kind.check_search(s.SEARCH if kind.name.startswith("HNSW") else {}, s.LIMIT)
    figures["search_ms"] = 1e3 / speed(index, data, wide, settings.index_seconds)
    figures |= swept(kind, index, data, settings.index_seconds)
    return figures | {"resident_to_raw": (_resident_bytes() - before_bytes) / data.vectors.nbytes}


def swept(kind: IndexKind, index: VectorIndex, data: Dataset, seconds: float) -> dict[str, float | None]:
    """QPS of the narrowest search that reaches each recall, and its width; None where none does."""
    found: dict[str, float | None] = {}
    targets = list(TARGETS)
    for params, width in widths(kind):
        reached = recall(index, data, s.LIMIT, params, 100, None)
        while targets and reached >= targets[0]:
            target = targets.pop(0)
            found[f"qps_{target}"] = speed(index, data, params, seconds)
            found[f"width_{target}"] = width
        if not targets:
            break
    return found


def widths(kind: IndexKind) -> list[tuple[dict[str, Any], float]]:
    """Search parameters from narrow to wide, with the number that makes them so; for a kind without any, its own."""
    for knob in KNOBS:
        if kind.check_search({knob: WIDTHS[-1]}, s.LIMIT) != kind.check_search({knob: WIDTHS[-2]}, s.LIMIT):
            usable = [width for width in WIDTHS if knob != "ef" or width >= s.LIMIT]
            return [(kind.check_search({knob: width}, s.LIMIT), width) for width in usable]
    return [(kind.check_search({}, s.LIMIT), 0)]


def recall(
    index: VectorIndex,
    data: Dataset,
    k: int,
    params: Mapping[str, Any],
    percent: int,
    allowed: NDArray[np.uint8] | None,
) -> float:
    queries = data.queries[:QUERIES]
    _, positions = index.search(queries, k, params, allowed)
    answers = [(query, row[row >= 0].tolist()) for query, row in enumerate(positions)]
    return data.recall(answers, k, percent)


def speed(index: VectorIndex, data: Dataset, params: Mapping[str, Any], seconds: float) -> float:
    """Searches a second, one query at a time."""
    queries = [data.queries[number : number + 1] for number in range(len(data.queries))]
    for query in queries[:20]:
        index.search(query, s.LIMIT, params, None)
    done, began_s = 0, time.perf_counter()
    while (taken_s := time.perf_counter() - began_s) < seconds:
        index.search(queries[done % len(queries)], s.LIMIT, params, None)
        done += 1
    return done / taken_s


def bitmap(allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(allowed, bitorder="little")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
