"""What a process tells about itself, read when somebody asks and at no other time.

Parts count in plain integers; each role turns them into samples of the metrics in `catalogue.py`. Metrics of a server
are its own: several live in one process. How they are written for Prometheus is in `exposition.py`, which is where
histograms and traces would come in too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A name that dashboards and alerts may count on, with its unit last."""

    name: str
    kind: Literal["gauge", "counter"]  # a counter's name ends with _total
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: float, *labels: object) -> Sample:
        """Its value now, for these values of its labels."""
        return Sample(self, value, tuple(map(str, labels)))


class Sample(NamedTuple):
    metric: Metric
    value: float
    labels: tuple[str, ...]


Source = Callable[[], Iterable[Sample]]  # called on the event loop; must be quick


class Metrics:
    """The sources of one server."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def add(self, source: Source) -> None:
        """Ask it, too, from now on."""
        self._sources.append(source)

    def samples(self) -> Iterator[Sample]:
        for source in self._sources:
            yield from source()
