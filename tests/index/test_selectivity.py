"""When a filter makes exact search the better choice."""

from __future__ import annotations

import pytest

from mishards.index.selectivity import prefers_exact, widened


@pytest.mark.parametrize(
    ("allowed", "rows", "k", "exact"),
    [
        (0, 100_000, 10, True),
        (10_000, 100_000, 10, True),
        (20_000, 100_000, 10, False),
        (30_000, 1_000_000, 10, True),
        (60_000, 1_000_000, 10, False),
        (1_000_000, 1_000_000, 10, False),
        (1_000_000, 1_000_000, 500_000, True),  # half of all rows
        (30_000, 100_000, 16_384, True),
    ],
)
def test_a_narrow_filter_or_a_large_k_prefers_exact(allowed: int, rows: int, k: int, exact: bool) -> None:
    """Exact search wins when few rows are allowed for the size of the segment, or when k wants many of them."""
    assert prefers_exact(allowed, rows, k) is exact


def test_breadth_grows_as_the_filter_narrows() -> None:
    """Half of the rows allowed doubles the breadth; all of them leave it; none is no division by zero."""
    assert [widened(64, allowed, 1000) for allowed in (1000, 500, 3, 0)] == [64, 128, 21334, 64000]
