"""The codes that stand in for an index: exact scores, good recall, rows that came after them, deleted rows."""

from __future__ import annotations

import numpy as np
import pytest

from mishards.index.bitmaps import bitmap
from mishards.index.exact import exact_search
from mishards.index.interim import FLOATS_MAX, FLOATS_MIN, LAG_ROWS_MIN, Interim
from mishards.index.metrics import prepared
from mishards.ports import Matrix
from mishards.testing.index_suite import clustered, recall

ROWS, K = 3000, 10
COVERED = 2600


@pytest.fixture(params=["L2", "IP", "COSINE"])
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


def test_rows_without_a_code_are_all_found(interim: Interim, ready: Matrix, metric: str) -> None:
    """A row that came later is found as surely as by exact search."""
    assert interim.rows == COVERED
    late = ready[COVERED:]

    _, positions = interim.over(ready).search(late, 1, {}, None)

    truth = exact_search(ready, late, 1, metric)[1]
    came_later = truth >= COVERED
    assert came_later.sum() >= (50 if metric == "IP" else len(late))  # the longest is nearest to many by IP
    np.testing.assert_array_equal(positions[came_later], truth[came_later])


@pytest.mark.parametrize("alive", [0.99, 0.6, 0.01])
def test_only_allowed_rows_are_found(interim: Interim, ready: Matrix, metric: str, alive: float) -> None:
    """Deleted and filtered rows never come back, with a code and without."""
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


def test_a_filter_that_hides_what_is_near_costs_nothing_but_time(interim: Interim, ready: Matrix, metric: str) -> None:
    """Where the rows that look best are not allowed, the answer is that of exact search."""
    query = QUERIES[:1]
    allowed = np.ones(ROWS, np.bool_)
    allowed[exact_search(ready, query, ROWS // 3, metric)[1]] = False

    _, positions = interim.over(ready).search(query, K, {}, bitmap(allowed))

    np.testing.assert_array_equal(positions, exact_search(ready, query, K, metric, bitmap(allowed))[1])


def test_rows_unlike_the_first_ones_are_found_as_well(metric: str) -> None:
    """Codes learned from rows that lie close together are learned again when others come."""
    close = prepared(np.float32(0.01) * clustered(2000, seed=3) + 1, metric)
    ready = np.concatenate([close, prepared(clustered(1000, seed=1), metric)])

    interim = Interim.grown(Interim.grown(None, close, metric), ready, metric)

    _, positions = interim.over(ready).search(QUERIES, K, {}, None)
    assert recall(positions, exact_search(ready, QUERIES, K, metric)[1]) >= 0.95


@pytest.mark.parametrize("dim", [1, 2, 7, 127])
def test_any_dimension_has_codes(dim: int) -> None:
    """Odd ones too."""
    ready = np.random.default_rng(0).standard_normal((1500, dim)).astype(np.float32)

    _, positions = Interim.grown(None, ready, "L2").over(ready).search(ready[:20], 1, {}, None)

    np.testing.assert_array_equal(positions[:, 0], np.arange(20))


def test_it_is_made_where_it_pays() -> None:
    """Not for few rows, not for too many; and again once enough rows have come."""
    rows = FLOATS_MIN // 16 + 1
    assert not Interim.lags(None, rows - 1, 16)
    assert Interim.lags(None, rows, 16)
    assert not Interim.lags(None, FLOATS_MAX // 16 + 1, 16)

    known = Interim.grown(None, np.zeros((rows, 16), np.float32), "L2")
    assert not Interim.lags(known, rows + LAG_ROWS_MIN - 1, 16)
    assert Interim.lags(known, rows + LAG_ROWS_MIN, 16)
