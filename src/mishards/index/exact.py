"""Exact search: every allowed row is scored. The reference that all else is compared with (I5).

A row's score depends on the row and the query alone, never on which other rows or queries are searched along, so the
answer does not change when rows move between segments (I12) and scores can be compared bit by bit. FAISS' fast path for
many queries (BLAS, |x|^2 + |y|^2 - 2xy) breaks that; giving it a selector makes it score pair by pair. Where
many queries search all rows, matrix products find the candidates and pair scores decide (`products`).

Ties are broken by position. FAISS returns any of the rows that tie at the k-th place, so one more row is asked for, and
where the k-th and the next tie, all rows as good as the k-th are collected.

FAISS leaves out rows whose score is beyond float32 (components near 1e19 and more) or no number: they come last here,
with the worst score there is, so that min(k, allowed) rows are returned always (I6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap, allowed_count, bitmap, positions_in, selector
from mishards.index.metrics import (
    best_first,
    larger_is_better,
    normalised,
    pair_scores,
    prepared,
    ranks_at,
    worst_score,
)
from mishards.index.products import QUERIES_MIN, SPARE, nearest_by_products
from mishards.ports import Matrix

__all__ = ["bitmap", "exact_range", "exact_range_at", "exact_search", "exact_search_at", "normalised"]

BLOCK_BYTES = 2 << 20  # of rows gathered at once: they stay in the processor's cache

Hits = tuple[Matrix, NDArray[np.int64]]
Ranks = Callable[[], NDArray[np.int64]]  # of all rows: what stands before what when scores are equal


def exact_search(
    vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None = None, ranks: Ranks | None = None
) -> Hits:
    """The k best allowed rows of each query: scores (nq, k), best first, and positions (nq, k), -1 for those missing.

    `vectors` (rows, dim), for COSINE as `normalised` gives them; `queries` (nq, dim) raw. Equal scores are ordered by
    position, or by `ranks()` (rows,), which is called only when some are equal. Runs on the calling thread.
    """
    queries = prepared(queries, metric)
    if allowed is not None and len(queries) >= QUERIES_MIN:
        chosen = positions_in(allowed, len(vectors))
        return _search_blocks(_readable(vectors), chosen, queries, k, metric, ranks, unit=False)
    return _search(_readable(vectors), queries, k, metric, allowed, ranks)


def exact_search_at(
    vectors: Matrix, chosen: NDArray[np.int64], queries: Matrix, k: int, metric: str, ranks: Ranks | None = None
) -> Hits:
    """`exact_search` among the rows at `chosen` (n,), ascending, of `vectors` (rows, dim) as stored, not normalised.

    They are scored where they lie, or gathered in blocks: no second copy of many rows. `ranks` of all rows.
    """
    queries, vectors, unit = prepared(queries, metric), _readable(vectors), metric == "COSINE"
    if len(queries) >= QUERIES_MIN:
        return _search_blocks(vectors, chosen, queries, k, metric, ranks, unit)
    found = np.full((len(queries), k), worst_score(metric), np.float32), np.full((len(queries), k), -1, np.int64)
    for query, scores in enumerate(_scores_of(vectors, chosen, queries, metric, unit)):
        best = _best_of(scores, k, metric, chosen, ranks)
        found[0][query, : len(best)], found[1][query, : len(best)] = scores[best], chosen[best]
    return found


def exact_range(
    vectors: Matrix,
    queries: Matrix,
    radius: float,
    range_filter: float | None,
    metric: str,
    allowed: Bitmap | None = None,
) -> tuple[NDArray[np.int64], Matrix, NDArray[np.int64]]:
    """All allowed rows better than `radius` and not better than `range_filter`, best first, ties by position.

    L2: range_filter <= score < radius; IP, COSINE: radius < score <= range_filter. Arguments as of `exact_search`.
    Returns (offsets (nq + 1,), scores (n,), positions (n,)): query i's hits are offsets[i]:offsets[i + 1].
    """
    faiss.omp_set_num_threads(1)
    offsets, scores, positions = _within(
        _readable(vectors), prepared(queries, metric), np.float32(radius), metric, allowed
    )
    numbers = np.repeat(np.arange(len(queries)), np.diff(offsets))
    if range_filter is not None:
        limit = np.float32(range_filter)
        kept = scores <= limit if larger_is_better(metric) else scores >= limit
        numbers, scores, positions = numbers[kept], scores[kept], positions[kept]
        offsets = np.searchsorted(numbers, np.arange(len(queries) + 1))
    order = np.lexsort((positions, -scores if larger_is_better(metric) else scores, numbers))
    return offsets, scores[order], positions[order]


def exact_range_at(
    vectors: Matrix,
    chosen: NDArray[np.int64],
    queries: Matrix,
    radius: float,
    range_filter: float | None,
    metric: str,
) -> tuple[NDArray[np.int64], Matrix, NDArray[np.int64]]:
    """`exact_range` among the rows at `chosen`; arguments as of `exact_search_at`."""
    parts = []
    for block, rows in _blocks(_readable(vectors), chosen, metric == "COSINE"):
        offsets, scores, numbers = exact_range(rows, queries, radius, range_filter, metric)
        parts.append((np.repeat(np.arange(len(queries)), np.diff(offsets)), scores, block[numbers]))
    queried, scores, positions = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((positions, -scores if larger_is_better(metric) else scores, queried))
    offsets = np.searchsorted(queried[order], np.arange(len(queries) + 1))
    return offsets, scores[order], positions[order]


def _scores_of(vectors: Matrix, chosen: NDArray[np.int64], queries: Matrix, metric: str, unit: bool) -> Matrix:
    """The scores (nq, n) of the rows at `chosen`; `unit`: they must be normalised first."""
    if not unit:
        return pair_scores(vectors, queries, np.tile(chosen, (len(queries), 1)), metric)
    scores = np.empty((len(queries), len(chosen)), np.float32)
    start = 0
    for block, rows in _blocks(vectors, chosen, unit):
        numbers = np.tile(np.arange(len(block)), (len(queries), 1))
        scores[:, start : start + len(block)] = pair_scores(rows, queries, numbers, metric)
        start += len(block)
    return scores


def _best_of(scores: Matrix, k: int, metric: str, chosen: NDArray[np.int64], ranks: Ranks | None) -> NDArray[np.int64]:
    """Which of the scores (n,) of the rows at `chosen` are the k best, best first, equal ones by position or rank."""
    costs = -scores if larger_is_better(metric) else scores
    reached = np.arange(len(costs))
    if len(costs) > k:
        reached = np.flatnonzero(costs <= np.partition(costs, k - 1)[k - 1])
    costs, places = costs[reached], chosen[reached]
    if ranks is not None and len(np.unique(costs)) < len(costs):
        places = ranks()[places]
    return reached[np.lexsort((places, costs))[:k]]


def _search_blocks(
    vectors: Matrix,
    chosen: NDArray[np.int64],
    queries: Matrix,
    k: int,
    metric: str,
    ranks: Ranks | None,
    unit: bool,
) -> Hits:
    """The best of the blocks' answers; `queries` prepared; `unit`: rows must be normalised first."""
    if ranks is not None:
        ranks = cache(ranks)
    best: Hits | None = None
    for block, rows in _blocks(vectors, chosen, unit):
        block_ranks = None if ranks is None else partial(_ranks_of, ranks, block)
        scores, numbers = _search(rows, queries, k, metric, None, block_ranks)
        found = scores, np.append(block, -1)[numbers]
        best = found if best is None else _better(best, found, k, metric, ranks)
    assert best is not None
    return best


def _blocks(vectors: Matrix, chosen: NDArray[np.int64], unit: bool) -> Iterator[tuple[NDArray[np.int64], Matrix]]:
    """(positions, their rows) block by block, at least one; the rows are gone with the next block."""
    step = max(1, BLOCK_BYTES // (4 * int(vectors.shape[1])))
    buffer = np.empty((min(step, len(chosen)), vectors.shape[1]), np.float32)
    for start in range(0, max(1, len(chosen)), step):
        block = chosen[start : start + step]
        rows = buffer[: len(block)]
        np.take(vectors, block, axis=0, out=rows, mode="clip")  # other modes copy twice
        if unit:
            faiss.normalize_L2(rows)
        yield block, rows


def _search(vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None, ranks: Ranks | None) -> Hits:
    """`exact_search` of prepared queries, the quickest way that is proven."""
    if allowed is not None or len(queries) < QUERIES_MIN or len(vectors) < 2 * (k + SPARE):
        return _search_pairs(vectors, queries, k, metric, allowed, ranks)
    scores, positions, proven = nearest_by_products(vectors, queries, k, metric, ranks)
    if not proven.all():
        left = ~proven
        scores[left], positions[left] = _search_pairs(vectors, queries[left], k, metric, None, ranks)
    return scores, positions


def _search_pairs(
    vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None, ranks: Ranks | None
) -> Hits:
    """`exact_search` of prepared queries, pair by pair."""
    faiss.omp_set_num_threads(1)
    scores, positions = _nearest(vectors, queries, k + 1, metric, allowed)
    tied = (scores[:, :-1] == scores[:, 1:]) & (positions[:, 1:] >= 0)
    places = min(k, allowed_count(allowed, len(vectors)))
    short = (positions[:, :places] < 0).any(axis=1)
    if not tied.any() and not short.any():
        return scores[:, :k], positions[:, :k]
    rank_of = ranks() if ranks is not None else np.arange(len(vectors))
    scores, positions = best_first(scores, positions, metric, ranks_at(rank_of, positions))
    for query in np.flatnonzero(tied[:, k - 1]):
        radius = _just_worse(scores[query, k - 1], metric)
        _, reached, at = _within(vectors, queries[query : query + 1], radius, metric, allowed)
        reached, at = best_first(reached, at, metric, rank_of[at])
        scores[query, :k], positions[query, :k] = reached[:k], at[:k]
    for query in np.flatnonzero(short):
        _add_left_out(scores[query, :places], positions[query, :places], metric, allowed, rank_of)
    return scores[:, :k], positions[:, :k]


def _better(a: Hits, b: Hits, k: int, metric: str, ranks: Ranks | None) -> Hits:
    """The k best of two answers (nq, k) over different rows."""
    scores = np.concatenate([a[0], b[0]], axis=1)
    positions = np.concatenate([a[1], b[1]], axis=1)
    scores[positions < 0] = worst_score(metric)  # whatever stands in an empty place
    order = None if ranks is None else ranks_at(ranks(), positions)
    scores, positions = best_first(scores, positions, metric, order)
    return scores[:, :k], positions[:, :k]


def _ranks_of(ranks: Ranks, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    return ranks()[chosen]


def _nearest(vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None) -> Hits:
    """Some k best rows, best first. FAISS' own function: `faiss.knn` takes no selector."""
    nq, dim = queries.shape
    scores, positions = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    pairs = (faiss.swig_ptr(queries), faiss.swig_ptr(vectors), dim, nq, len(vectors))
    found = (k, faiss.swig_ptr(scores), faiss.swig_ptr(positions))
    pairwise = _selector(allowed)
    if larger_is_better(metric):
        faiss.knn_inner_product(*pairs, *found, pairwise)
    else:
        faiss.knn_L2sqr(*pairs, *found, None, pairwise)
    return scores, positions


def _within(
    vectors: Matrix, queries: Matrix, radius: np.float32, metric: str, allowed: Bitmap | None
) -> tuple[NDArray[np.int64], Matrix, NDArray[np.int64]]:
    """All rows strictly better than `radius`, unordered: (offsets (nq + 1,), scores (n,), positions (n,))."""
    nq, dim = queries.shape
    found = faiss.RangeSearchResult(nq)
    search = faiss.range_search_inner_product if larger_is_better(metric) else faiss.range_search_L2sqr
    pairs = (faiss.swig_ptr(queries), faiss.swig_ptr(vectors), dim, nq, len(vectors))
    search(*pairs, float(radius), found, _selector(allowed))
    offsets = faiss.rev_swig_ptr(found.lims, nq + 1).astype(np.int64)
    count = int(offsets[-1])
    return offsets, faiss.rev_swig_ptr(found.distances, count).copy(), faiss.rev_swig_ptr(found.labels, count).copy()


def _add_left_out(
    scores: Matrix, positions: NDArray[np.int64], metric: str, allowed: Bitmap | None, rank_of: NDArray[np.int64]
) -> None:
    """Fill the places (k,) of one query that FAISS left empty though there are rows for them. In place."""
    rows, found = len(rank_of), int((positions >= 0).sum())
    missing = np.ones(rows, bool) if allowed is None else np.unpackbits(allowed, count=rows, bitorder="little") > 0
    missing[positions[:found]] = False
    left_out = np.flatnonzero(missing)
    positions[found:] = left_out[np.argsort(rank_of[left_out])][: len(positions) - found]
    scores[found:] = worst_score(metric)


def _selector(allowed: Bitmap | None) -> faiss.IDSelector:
    """A selector in every case: without one FAISS may leave its pair-by-pair kernels."""
    return faiss.IDSelectorAll() if allowed is None else selector(allowed)


def _readable(vectors: Matrix) -> Matrix:
    return np.ascontiguousarray(np.asarray(vectors), dtype=np.float32)


def _just_worse(score: np.float32, metric: str) -> np.float32:
    """The next float32 on the worse side: strictly better than it means at least as good as `score`."""
    return np.float32(np.nextafter(score, np.float32(-np.inf if larger_is_better(metric) else np.inf)))
