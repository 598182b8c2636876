"""How the cluster does with 1, 2, 3 readers on the same data. On two cores more readers cannot be faster: this shows
what spreading costs."""

from __future__ import annotations

from bench import systems
from bench.context import Context
from bench.data import Dataset
from bench.serving import loaded, search, started
from bench.settings import POINTS

SECTION = "readers"
ROWS = ("nq=1, 1 worker", "nq=1, 4 workers", "nq=100, 1 worker")


def measure(context: Context, data: Dataset) -> None:
    loaded(context, data, "cluster")
    for readers in context.settings.readers:
        context.say(f"{data.name}: a cluster with {readers} readers")
        system = systems.make("cluster", context.home(data, "cluster"), readers)
        with system.running():
            seconds = started(system, data)
            for point in (point for point in POINTS if point.row in ROWS):
                context.results.add(SECTION, data.name, str(readers), point.row, **search(context, data, system, point))
            bytes_ = system.program.memory_bytes()
        context.results.add(SECTION, data.name, str(readers), "start", seconds=seconds, bytes=bytes_)
