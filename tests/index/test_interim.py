"""The codes that stand in for an index: exact scores, good recall, several sources at once, rows that came later."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from mishards.index.bitmaps import bitmap
from mishards.index.exact import exact_search
from mishards.index.interim import JUDGED_ROWS, Codebook, Coded, Covering, Interim, Mask, Part
from mishards.index.metrics import prepared
from mishards.ports import Matrix
from mishards.testing.index_suite import clustered, recall

T = TypeVar("T", bound=np.generic)

ROWS, K = 3000, 10
CUTS = (0, 500, 1800, ROWS)  # where the parts begin and end
LATE = 400  # rows of the last part that have no code

QUERIES = clustered(40, seed=2)


@pytest.fixture(params=["L2", "IP", "COSINE"])
def metric(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ready(metric: str) -> Matrix:
    return prepared(clustered(ROWS, seed=1), metric)


@pytest.fixture
def covering(ready: Matrix, metric: str) -> Covering:
    """Over three parts, the last of which has grown since; before and between them are codes of others."""
    pieces = parts_of(ready)
    known = [*pieces[:2], pieces[2][:-LATE]]
    book = Codebook(known, metric)
    others = coded(book, prepared(clustered(100, seed=9), metric))
    interim = Interim(book, [others, coded(book, known[0]), others, *(coded(book, each) for each in known[1:])], metric)
    return interim.over([Part(piece, None, number) for piece, number in zip(pieces, (1, 3, 4), strict=True)])


def coded(book: Codebook, ready: Matrix) -> Coded:
    return Coded(ready, book.codes(ready))


def parts_of(rows: NDArray[T]) -> list[NDArray[T]]:
    return [rows[start:end] for start, end in pairwise(CUTS)]


def found(
    covering: Covering, queries: Matrix, k: int, metric: str, allowed: Mask | None = None
) -> tuple[Matrix, NDArray[np.int64], Mask]:
    """The k best of what it finds for each query (nq, k), -1 for none, as positions in all rows; and what it lacks."""
    masks = None if allowed is None else parts_of(allowed)
    rows, lacking = covering.search(queries, k, {}, masks, covering.count(masks))
    positions = rows.positions + np.array(CUTS)[rows.parts]
    best = np.full((len(queries), k), -1)
    scores = np.zeros((len(queries), k), np.float32)
    for query in range(len(queries)):
        mine = np.flatnonzero(rows.queries == query)
        worth = rows.scores[mine] if metric == "L2" else -rows.scores[mine]
        mine = mine[np.lexsort((positions[mine], worth))][:k]
        assert len(set(positions[mine])) == len(mine)
        best[query, : len(mine)], scores[query, : len(mine)] = positions[mine], rows.scores[mine]
    return scores, best, lacking


@pytest.mark.parametrize("nq", [1, 40])
def test_it_finds_what_exact_search_finds(covering: Covering, ready: Matrix, metric: str, nq: int) -> None:
    """Nearly all of the nearest rows of all parts, and each with the score of exact search, bit for bit."""
    for start in range(0, len(QUERIES), nq):
        queries = QUERIES[start : start + nq]
        scores, positions, lacking = found(covering, queries, K, metric)

        truth_scores, truth = exact_search(ready, queries, K, metric)
        assert not lacking.any()
        assert recall(positions, truth) >= (0.95 if nq > 1 else 0.8)
        same = positions == truth
        np.testing.assert_array_equal(scores[same], truth_scores[same])


def test_rows_without_a_code_are_all_found(covering: Covering, ready: Matrix, metric: str) -> None:
    """A row that came later is found as surely as by exact search."""
    late = ready[-LATE:]

    _, positions, _ = found(covering, late, 1, metric)

    truth = exact_search(ready, late, 1, metric)[1]
    came_later = truth >= ROWS - LATE
    assert came_later.sum() >= (50 if metric == "IP" else len(late))  # the longest is nearest to many by IP
    np.testing.assert_array_equal(positions[came_later], truth[came_later])


@pytest.mark.parametrize("alive", [0.99, 0.6])
def test_only_allowed_rows_are_found(covering: Covering, ready: Matrix, metric: str, alive: float) -> None:
    """Deleted and filtered rows never come back, with a code and without."""
    allowed = np.random.default_rng(5).random(ROWS) < alive

    _, positions, lacking = found(covering, QUERIES, K, metric, allowed)

    assert allowed[positions[~lacking]].all()
    truth = exact_search(ready, QUERIES, K, metric, bitmap(allowed))[1]
    assert recall(positions[~lacking], truth[~lacking]) >= 0.95
    assert lacking.mean() < 0.1


@pytest.mark.parametrize("alive", [0.01, 0.0])
def test_few_allowed_rows_are_left_to_exact_search(covering: Covering, alive: float) -> None:
    """Scoring them all is quicker."""
    allowed = np.random.default_rng(5).random(ROWS) < alive

    count = covering.count(parts_of(allowed))

    assert count == np.count_nonzero(allowed)
    assert covering.prefers_exact(count, 1, K, {})


def test_a_filter_that_hides_what_is_near_is_told(covering: Covering, ready: Matrix, metric: str) -> None:
    """Where the rows that look best are not allowed, the query has to be searched exactly."""
    allowed = np.ones(ROWS, np.bool_)
    allowed[exact_search(ready, QUERIES[:1], ROWS // 3, metric)[1]] = False

    assert found(covering, QUERIES[:1], K, metric, allowed)[2].tolist() == [True]


def test_a_part_may_be_of_another_version(ready: Matrix, metric: str) -> None:
    """Of rows that were not asked for when codes were made some may be by now, or the other way round, or not be there
    yet."""
    book = Codebook([ready], metric)
    even = np.arange(0, ROWS, 2)
    interim = Interim(book, [Coded(ready, book.codes(ready), even)], metric)
    earlier = np.arange(ROWS - LATE) % 4 < 2

    covering = interim.over([Part(ready[:-LATE], earlier, 0)])

    assert (covering.coded, covering.late) == (650, 650)
    queries = ready[: ROWS - LATE : 100]
    hits, lacking = covering.search(queries, K, {}, None, covering.count(None))
    assert earlier[hits.positions].all()
    truth = exact_search(ready[:-LATE], queries, K, metric, bitmap(earlier))[1]
    rows = [hits.positions[hits.queries == query] for query in range(len(queries))]
    assert np.mean([np.isin(truth[query], rows[query]).mean() for query in np.flatnonzero(~lacking)]) >= 0.95


def test_vectors_are_copied_only_where_they_have_to_lie_side_by_side(ready: Matrix, metric: str) -> None:
    """Those of several sources, or of some rows of one."""
    book = Codebook([ready], metric)
    codes = book.codes(ready)
    half = np.arange(ROWS // 2)

    assert Interim(book, [Coded(ready, codes)], metric).bytes == codes.nbytes
    assert Interim(book, [Coded(ready, codes, half)], metric).bytes == (codes.nbytes + ready.nbytes) // 2
    assert Interim(book, [Coded(ready, codes)] * 2, metric).bytes == 2 * (codes.nbytes + ready.nbytes)


@pytest.mark.parametrize("number", [1e4, 1e19, 3e38])
def test_a_vector_of_another_order_harms_no_other(metric: str, number: float) -> None:
    """Codes tell the others apart as before, and where scores are beyond float32, which FAISS does not order, the query
    is left to exact search."""
    rows = clustered(ROWS, seed=1)
    rows[0] = number
    ready = prepared(rows, metric)
    book = Codebook([ready], metric)
    covering = Interim(book, [coded(book, ready)], metric).over([Part(ready, None, 0)])

    hits, lacking = covering.search(QUERIES, K, {}, None, ROWS)

    usual = np.arange(ROWS) > 0
    truth = exact_search(ready, QUERIES, K, metric, bitmap(usual))[1]
    met = [np.isin(truth[query], hits.positions[hits.queries == query]).mean() for query in np.flatnonzero(~lacking)]
    assert np.mean(met) >= 0.9
    assert np.isfinite(hits.scores[~lacking[hits.queries]]).all()
    assert book.suits(ROWS, [ready[:JUDGED_ROWS]])


def test_a_book_suits_rows_like_those_it_was_learned_from(metric: str) -> None:
    """Not others, nor many times as many."""
    close = prepared(np.float32(0.01) * clustered(2000, seed=3) + 1, metric)
    book = Codebook([close[:500], close[500:1000]], metric)

    assert book.trained == 1000
    assert book.suits(2000, [close[1000:], close[:0]])
    assert not book.suits(2000, [close[1000:1900], prepared(clustered(100, seed=1), metric)])
    assert not book.suits(4000, [close[1000:]])


@pytest.mark.parametrize("dim", [1, 2, 7, 127])
def test_any_dimension_has_codes(dim: int) -> None:
    """Odd ones too."""
    ready = np.random.default_rng(0).standard_normal((1500, dim)).astype(np.float32)
    book = Codebook([ready], "L2")
    covering = Interim(book, [coded(book, ready)], "L2").over([Part(ready, None, 0)])

    rows, _ = covering.search(ready[:20], 1, {}, None, len(ready))

    assert all((rows.positions[rows.queries == query] == query).any() for query in range(20))
