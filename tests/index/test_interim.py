"""The graph that stands in for an index: exact scores, good recall, rows that came after it, deleted rows."""

from __future__ import annotations

import numpy as np
import pytest

from mishards.index.bitmaps import bitmap
from mishards.index.exact import exact_search
from mishards.index.hnsw import SCANNED_FLOATS_MAX
from mishards.index.interim import FLOATS_MAX, LAG_ROWS_MIN, Interim
from mishards.index.metrics import prepared
from mishards.ports import Matrix
from mishards.testing.index_suite import clustered, recall

ROWS, K = 3000, 10
COVERED = 2600


@pytest.fixture(params=["L2", "COSINE"])
def metric(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ready(metric: str) -> Matrix:
    return prepared(clustered(ROWS, seed=1), metric)


@pytest.fixture
def interim(ready: Matrix, metric: str) -> Interim:
    """Over the first rows, made in two steps."""
    return Interim.grown(Interim.grown(None, ready[:1000], metric), ready[:COVERED], metric)


QUERIES = clustered(40, seed=2)


def test_it_finds_what_exact_search_finds(interim: Interim, ready: Matrix, metric: str) -> None:
    """Nearly all of the nearest rows, and each with the score of exact search, bit for bit."""
    scores, positions = interim.over(ready).search(QUERIES, K, {"ef": 64}, None)

    truth_scores, truth = exact_search(ready, QUERIES, K, metric)
    assert recall(positions, truth) >= 0.95
    same = positions == truth
    np.testing.assert_array_equal(scores[same], truth_scores[same])


def test_rows_after_the_graph_are_all_found(interim: Interim, ready: Matrix, metric: str) -> None:
    """A row that the graph does not cover yet is found as surely as by exact search."""
    assert interim.rows == COVERED
    late = ready[COVERED:]

    _, positions = interim.over(ready).search(late, 1, {}, None)

    truth = exact_search(ready, late, 1, metric)[1]
    np.testing.assert_array_equal(positions, truth)


@pytest.mark.parametrize("alive", [0.99, 0.6, 0.01])
def test_only_allowed_rows_are_found(interim: Interim, ready: Matrix, metric: str, alive: float) -> None:
    """Deleted and filtered rows never come back, before the end of the graph and after it."""
    allowed = np.random.default_rng(5).random(ROWS) < alive

    _, positions = interim.over(ready).search(QUERIES, K, {}, bitmap(allowed))

    assert allowed[positions].all()
    assert recall(positions, exact_search(ready, QUERIES, K, metric, bitmap(allowed))[1]) >= 0.95


def test_searches_go_on_in_the_old_one_while_it_grows(ready: Matrix, metric: str) -> None:
    """What was handed out stays as it was."""
    first = Interim.grown(None, ready[:1000], metric)
    before = first.over(ready[:1000]).search(QUERIES, K, {}, None)

    Interim.grown(first, ready, metric)

    after = first.over(ready[:1000]).search(QUERIES, K, {}, None)
    np.testing.assert_array_equal(before[1], after[1])


def test_it_is_made_where_it_pays() -> None:
    """Not for few rows, not for too many, not for inner products; and again once enough rows have come."""
    rows = SCANNED_FLOATS_MAX // 16 + 1
    assert not Interim.lags(None, rows - 1, 16, "L2")
    assert Interim.lags(None, rows, 16, "L2")
    assert not Interim.lags(None, rows, 16, "IP")
    assert not Interim.lags(None, FLOATS_MAX // 16 + 1, 16, "L2")

    known = Interim.grown(None, np.zeros((rows, 1), np.float32), "L2")
    assert not Interim.lags(known, rows + LAG_ROWS_MIN - 1, 16, "L2")
    assert Interim.lags(known, rows + LAG_ROWS_MIN, 16, "L2")
