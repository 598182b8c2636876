"""The oracle itself, on cases small enough to check by hand."""

from __future__ import annotations

import pytest

from oracle import Hit, Metric, Oracle


def _filled(metric: Metric) -> Oracle:
    oracle = Oracle(metric)
    oracle.insert([{"id": 3, "vector": [1, 1]}, {"id": 1, "vector": [1, -1]}, {"id": 2, "vector": [3, 0]}])
    return oracle


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("L2", [Hit(1, 1.0), Hit(3, 1.0), Hit(2, 4.0)]),
        ("IP", [Hit(2, 3.0), Hit(1, 1.0), Hit(3, 1.0)]),
        ("COSINE", [Hit(2, 1.0), Hit(1, 0.5**0.5), Hit(3, 0.5**0.5)]),
    ],
)
def test_order_of_hits(metric: Metric, expected: list[Hit]) -> None:
    """Hits come best first in the metric's sense, ties by primary key."""
    hits = _filled(metric).search([1, 0], limit=10)

    assert [hit.key for hit in hits] == [hit.key for hit in expected]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected])


def test_range_and_offset() -> None:
    """The radius is exclusive, the range filter inclusive, and the offset skips the best hits."""
    assert [hit.key for hit in _filled("L2").search([1, 0], 10, radius=4)] == [1, 3]
    assert [hit.key for hit in _filled("L2").search([1, 0], 10, radius=5, range_filter=4)] == [2]
    assert [hit.key for hit in _filled("IP").search([1, 0], 10, radius=1)] == [2]
    assert [hit.key for hit in _filled("IP").search([1, 0], 10, radius=0, range_filter=1)] == [1, 3]
    assert [hit.key for hit in _filled("L2").search([1, 0], 1, offset=1)] == [3]


def test_writes_replace_and_remove() -> None:
    """The newest row of a key counts, and a deleted key comes back only when it is inserted again."""
    oracle = _filled("L2")

    oracle.upsert([{"id": 2, "vector": [0, 0]}])
    oracle.delete([1])
    assert oracle.keys == [2, 3]
    assert oracle.query(lambda row: row["vector"] == [0, 0]) == [{"id": 2, "vector": [0, 0]}]

    oracle.delete_where(lambda row: row["id"] > 2)
    oracle.insert([{"id": 1, "vector": [5, 5]}], partition="other")
    assert oracle.keys == [1, 2]
    assert [hit.key for hit in oracle.search([0, 0], 5, partitions=["other"])] == [1]
