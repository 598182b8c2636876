"""The page that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from mishards.telemetry.metrics import Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST


def page(samples: Iterable[Sample]) -> bytes:
    """The samples, and what the system says of this process, in Prometheus' text format."""
    return generate_latest(_Page(samples))


class _Page(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric, value, labels in samples:
            family = self._families.get(metric.name)
            if family is None:
                kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
                family = self._families[metric.name] = kind(metric.name, metric.help, labels=metric.labels)
            family.add_metric(labels, value)

    def collect(self) -> Iterator[Family]:
        yield from self._families.values()
        yield from ProcessCollector(registry=None).collect()
