"""When a filter makes exact search the better choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mishards.index.hnsw import HNSW
from mishards.index.selectivity import exact_cost_s, is_exact_better, widened
from mishards.index.stored import Stored
from mishards.testing.index_suite import build


def rows_of(rows: int, dim: int, metric: str = "L2") -> Stored:
    """That many rows, all the same one, in the memory of one."""
    return Stored(np.broadcast_to(np.zeros(dim, np.float32), (rows, dim)), metric)


@pytest.mark.parametrize(
    ("allowed", "rows", "dim", "metric", "exact"),
    [
        (0, 20_000, 128, "L2", True),
        (200, 20_000, 128, "L2", True),
        (10_000, 20_000, 128, "L2", False),
        (4_000, 20_000, 128, "L2", True),
        (3_000, 62_666, 384, "COSINE", True),
        (6_000, 62_666, 384, "COSINE", False),
        (12_000, 62_666, 384, "COSINE", False),
        (5_000, 62_666, 384, "L2", True),
        (31_000, 62_666, 384, "L2", False),
        (20_000, 20_000, 128, "L2", False),
    ],
)
def test_a_narrow_filter_prefers_exact(allowed: int, rows: int, dim: int, metric: str, exact: bool) -> None:
    """Against a walk of 64 steps of 2.5 us, widened by the filter, exact search wins when few rows are left; by cosine
    fewer, because they must be normalised."""
    walk_s = min(rows, widened(64, 10, allowed, rows)) * 2.5e-6

    assert is_exact_better(walk_s, allowed, rows_of(rows, dim, metric), 1, 10) is exact


def test_half_of_the_rows_are_searched_exactly() -> None:
    """When k wants every second row an index has nothing to leave out, however cheap it is."""
    assert is_exact_better(0.0, 1000, rows_of(1000, 128), 1, 500)
    assert not is_exact_better(0.0, 1000, rows_of(1000, 128), 1, 499)


def test_many_queries_share_what_is_gathered() -> None:
    """A query of many costs less than one alone."""
    one, hundred = (exact_cost_s(10_000, 100_000, 128, nq, unit=True) for nq in (1, 100))

    assert hundred < 30 * one


def test_a_loaded_index_decides_by_its_own_breadth(tmp_path: Path) -> None:
    """The wider the client lets a walk be, the sooner scoring the selected rows is better."""
    index = build(HNSW, np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32), "L2", tmp_path)

    assert not index.prefers_exact(3000, 1, 10, {"ef": 10})
    assert index.prefers_exact(3000, 1, 10, {"ef": 2000})


def test_breadth_grows_as_the_filter_narrows() -> None:
    """Half of the rows allowed doubles the breadth; all of them leave it; none is no division by zero."""
    assert [widened(64, 10, allowed, 1000) for allowed in (1000, 500, 3, 0)] == [64, 91, 6496, 19487]
