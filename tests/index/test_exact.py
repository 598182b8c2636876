"""Exact search, against a plain oracle on vectors of small integers, where every score is exact and ties abound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mishards.index.bitmaps import allowed_count, bitmap
from mishards.index.exact import exact_range, exact_range_at, exact_search, exact_search_at
from mishards.index.metrics import larger_is_better, normalised, prepared
from mishards.index.products import QUERIES_MIN, SPARE, nearest_by_products

METRIC = st.sampled_from(["L2", "IP", "COSINE"])
Case = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """(vectors, queries, mask): coordinates in -2..2, so that most scores occur many times."""
    rows, nq, dim = draw(st.integers(0, 60)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 4, 7, 16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = rng.integers(-2, 3, (rows, dim)).astype(np.float32)
    queries = rng.integers(-2, 3, (nq, dim)).astype(np.float32)
    return vectors, queries, rng.random(rows) < draw(st.sampled_from([0.0, 0.3, 1.0]))


def score_table(vectors: NDArray[np.float32], queries: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """The score of every pair (nq, rows). For COSINE by search for each row alone: its roundings are part of it."""
    if metric == "COSINE":
        rows = normalised(vectors)
        columns = [exact_search(rows[i : i + 1], queries, 1, metric)[0] for i in range(len(rows))]
        return np.concatenate([*columns, np.empty((len(queries), 0))], axis=1)
    wide, questions = vectors.astype(np.float64), queries.astype(np.float64)
    return ((questions[:, None] - wide) ** 2).sum(2) if metric == "L2" else questions @ wide.T


def oracle(
    table: NDArray[np.float64], mask: NDArray[np.bool_], metric: str, ranks: NDArray[np.int64]
) -> list[list[int]]:
    """All allowed positions of each query, best first, ties by rank."""
    sign = -1 if larger_is_better(metric) else 1
    return [sorted(np.flatnonzero(mask).tolist(), key=lambda at, row=row: (sign * row[at], ranks[at])) for row in table]


@given(cases(), METRIC, st.integers(1, 70), st.booleans())
def test_search_equals_the_oracle_ties_included(case: Case, metric: str, k: int, filtered: bool) -> None:
    """The k best rows, ties broken by the lower position, then -1; scores are those of the oracle."""
    vectors, queries, mask = case
    mask = mask if filtered else np.ones(len(vectors), bool)
    table = score_table(vectors, queries, metric)

    scores, positions = exact_search(prepared(vectors, metric), queries, k, metric, bitmap(mask) if filtered else None)

    wanted = oracle(table, mask, metric, np.arange(len(vectors)))
    for query, order in enumerate(wanted):
        n = min(k, len(order))
        assert positions[query].tolist() == order[:k] + [-1] * (k - n)
        assert scores[query, :n].tolist() == table[query, order[:k]].tolist()


@given(cases(), METRIC, st.integers(1, 20), st.randoms(use_true_random=False))
def test_ranks_break_ties_instead_of_positions(case: Case, metric: str, k: int, random: st.DataObject) -> None:
    """With ranks the answer is that of the same rows laid out in the order of their ranks."""
    vectors, queries, mask = case
    ranks = np.array(random.sample(range(len(vectors)), len(vectors)), np.int64)  # type: ignore[attr-defined]
    table = score_table(vectors, queries, metric)

    _, positions = exact_search(prepared(vectors, metric), queries, k, metric, bitmap(mask), lambda: ranks)

    assert [row[row >= 0].tolist() for row in positions] == [each[:k] for each in oracle(table, mask, metric, ranks)]


@given(cases(), METRIC, st.integers(0, 60), st.integers(0, 60), st.booleans())
def test_a_range_holds_its_inner_bound_and_not_its_outer(
    case: Case, metric: str, outer: int, inner: int, bounded: bool
) -> None:
    """Rows strictly better than the radius and not better than the range filter, best first; both bounds are scores."""
    vectors, queries, mask = case
    table = score_table(vectors, queries, metric)
    every = [*table.ravel().tolist(), 0.0]
    radius, limit = every[outer % len(every)], every[inner % len(every)] if bounded else None

    offsets, scores, positions = exact_range(prepared(vectors, metric), queries, radius, limit, metric, bitmap(mask))

    def inside(score: float) -> bool:
        if larger_is_better(metric):
            return score > radius and (limit is None or score <= limit)
        return score < radius and (limit is None or score >= limit)

    for query, order in enumerate(oracle(table, mask, metric, np.arange(len(vectors)))):
        wanted = [at for at in order if inside(table[query, at])]
        mine = slice(offsets[query], offsets[query + 1])
        assert positions[mine].tolist() == wanted
        assert scores[mine].tolist() == table[query, wanted].tolist()
    assert len(offsets) == len(queries) + 1


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("dim", [1, 3, 8, 31, 128])
@pytest.mark.parametrize("nq", [1, 3, 1200])  # the last is far beyond where FAISS turns to BLAS
def test_a_score_depends_on_its_row_and_query_alone(metric: str, dim: int, nq: int) -> None:
    """I12: however rows are split into segments, merging the parts gives the whole bit for bit."""
    rng = np.random.default_rng(dim)
    vectors = rng.normal(size=(301, dim)).astype(np.float32)
    vectors[200:220] = vectors[100:120]  # some ties
    queries = rng.normal(size=(nq, dim)).astype(np.float32)
    k = 15

    whole = exact_search(prepared(vectors, metric), queries, k, metric)

    parts = []
    for start, end in ((0, 1), (1, 110), (110, 113), (113, 301)):
        scores, positions = exact_search(prepared(vectors[start:end], metric), queries, k, metric)
        parts.append((scores, np.where(positions >= 0, positions + start, np.iinfo(np.int64).max)))
    scores, positions = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    order = np.lexsort((positions, -scores if larger_is_better(metric) else scores), axis=-1)[:, :k]
    assert np.array_equal(np.take_along_axis(scores, order, 1), whole[0])
    assert np.array_equal(np.take_along_axis(positions, order, 1), whole[1])


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
def test_a_segment_of_equal_rows_answers_with_the_first(metric: str) -> None:
    """When all rows tie, any k gives the lowest positions in order, also beyond FAISS' change of algorithm at 100."""
    vectors = np.full((5000, 4), 2, np.float32)

    for k in (1, 99, 100, 2000):
        assert exact_search(prepared(vectors, metric), vectors[:2], k, metric)[1].tolist() == [list(range(k))] * 2


@given(cases(), METRIC, st.integers(1, 70), st.booleans(), st.booleans())
def test_chosen_rows_are_searched_as_all_are(case: Case, metric: str, k: int, many: bool, ranked: bool) -> None:
    """Rows named by their positions give what a bitmap gives, for few queries or many, ties and ranges included."""
    vectors, queries, mask = case
    queries = np.tile(queries, (QUERIES_MIN if many else 1, 1))
    chosen, reverse = np.flatnonzero(mask), np.arange(len(vectors))[::-1]
    ranks = (lambda: reverse) if ranked else None
    table = prepared(vectors, metric)

    scores, positions = exact_search_at(vectors, chosen, queries, k, metric, ranks)

    wanted = [exact_search(table, query[None], k, metric, bitmap(mask), ranks) for query in queries]
    assert np.array_equal(positions, np.concatenate([each[1] for each in wanted]))
    found = positions >= 0
    assert np.array_equal(scores[found], np.concatenate([each[0] for each in wanted])[found])
    if len(chosen):
        radius = float(scores[found][-1])
        pairs = zip(
            exact_range_at(vectors, chosen, queries, radius, None, metric),
            exact_range(table, queries, radius, None, metric, bitmap(mask)),
            strict=True,
        )
        assert all(np.array_equal(mine, true) for mine, true in pairs)


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_matrix_products_answer_only_what_they_can_prove(metric: str, offset: float) -> None:
    """What they call proven is the answer of pair scores bit for bit; far from the origin, and among ties, less is."""
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(2000, 48)) + offset).astype(np.float32)
    vectors[400] *= 2  # the best of the last query by every metric
    vectors[500:600] = vectors[400]
    queries = np.concatenate([(rng.normal(size=(60, 48)) + offset).astype(np.float32), vectors[400:401]])
    ready, asked = prepared(vectors, metric), prepared(queries, metric)

    scores, positions, proven = nearest_by_products(ready, asked, 10, metric)

    pairs = [exact_search(ready, query[None], 10, metric) for query in queries]
    true_scores, true_positions = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert np.array_equal(scores[proven], true_scores[proven])
    assert np.array_equal(positions[proven], true_positions[proven])
    if offset == 0:
        assert proven[:-1].sum() > 20  # the others may count tied rows among their best
    assert not proven[-1]  # 101 rows tie, more than are looked at
    assert SPARE < 100
    whole = exact_search(ready, queries, 10, metric)
    assert np.array_equal(whole[0], true_scores)
    assert np.array_equal(whole[1], true_positions)


def test_bitmaps_count_what_they_allow() -> None:
    """A bitmap of any length counts its rows; none allows all."""
    mask = np.arange(13) % 3 == 0

    assert allowed_count(bitmap(mask), 13) == 5
    assert allowed_count(None, 13) == 13


def test_normalising_keeps_the_original_and_zero_rows() -> None:
    """Rows get length 1 in a copy; a zero row stays zero."""
    vectors = np.array([[3, 4], [0, 0]], np.float32)

    assert normalised(vectors).tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]
    assert vectors[0].tolist() == [3, 4]


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_scores_beyond_float32(metric: str) -> None:
    """Rows whose score overflows come last, in the order of their ranks, and each row is found once whatever k is."""
    vectors = np.array([[3e38, 3e38], [0, 0], [3e38, 1], [1, 1], [3e38, 2]], np.float32)
    query, mask = np.full((1, 2), -1e30, np.float32), np.array([True, True, True, True, False])
    ranks = np.array([4, 3, 2, 1, 0])

    for k in range(1, 7):
        scores, positions = exact_search(vectors, query, k, metric, bitmap(mask), lambda: ranks)

        best = [3, 2, 1, 0] if metric == "L2" else [1, 3, 2, 0]
        assert positions[0].tolist() == (best + [-1] * k)[:k]
        assert np.isfinite(scores).all()
