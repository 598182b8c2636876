"""Metrics as parts tell them, and as Prometheus reads them."""

from __future__ import annotations

import re

from mishards.telemetry import catalogue
from mishards.telemetry.exposition import CONTENT_TYPE, page
from mishards.telemetry.metrics import Metric, Metrics

ROWS = Metric("mishards_rows", "gauge", "Rows there are.", ("collection", "shard"))
WRITES = Metric("mishards_writes_total", "counter", "Writes so far.")


def test_a_page() -> None:
    """Every sample of every source under its name, with its labels, kind and meaning, and what is known of the
    process."""
    metrics = Metrics()
    metrics.add(lambda: [ROWS.of(3, 'a "quoted" name', 0), WRITES.of(7)])
    metrics.add(lambda: [ROWS.of(4, "b", 1)])

    lines = page(metrics.samples()).decode().splitlines()

    assert lines[:4] == [
        "# HELP mishards_rows Rows there are.",
        "# TYPE mishards_rows gauge",
        r'mishards_rows{collection="a \"quoted\" name",shard="0"} 3.0',
        'mishards_rows{collection="b",shard="1"} 4.0',
    ]
    assert "# TYPE mishards_writes_total counter" in lines
    assert "mishards_writes_total 7.0" in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert CONTENT_TYPE.startswith("text/plain; version=")


def test_servers_tell_their_own() -> None:
    """What one server tells another one in the same process does not."""
    one, other = Metrics(), Metrics()
    one.add(lambda: [WRITES.of(1)])

    assert list(other.samples()) == []


def test_names() -> None:
    """Each name is ours, there once, and says by its end whether it only grows."""
    metrics = [value for value in vars(catalogue).values() if isinstance(value, Metric)]

    assert len({metric.name for metric in metrics}) == len(metrics) > 30
    for metric in metrics:
        assert re.fullmatch(r"mishards(_[a-z]+)+", metric.name)
        assert (metric.kind == "counter") is metric.name.endswith("_total")
        assert metric.help
