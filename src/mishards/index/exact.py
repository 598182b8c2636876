"""Exact search: every allowed row is scored. The reference that all else is compared with (I5).

A row's score depends on the row and the query alone, never on which other rows or queries are searched along, so the
answer does not change when rows move between segments (I12) and scores can be compared bit by bit. FAISS' fast path for
many queries (BLAS, |x|^2 + |y|^2 - 2xy) breaks that; giving it a selector makes it score pair by pair, at the same
speed up to some hundred queries.

Ties are broken by position. FAISS returns any of the rows that tie at the k-th place, so one more row is asked for, and
where the k-th and the next tie, all rows as good as the k-th are collected.

FAISS leaves out rows whose score is beyond float32 (components near 1e19 and more) or no number: they come last here,
with the worst score there is, so that min(k, allowed) rows are returned always (I6).
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap, allowed_count, bitmap, selector
from mishards.index.metrics import best_first, larger_is_better, normalised, prepared
from mishards.ports import Matrix

__all__ = ["bitmap", "exact_range", "exact_search", "normalised"]

WORST = np.finfo(np.float32).max  # as FAISS scores an empty place

Hits = tuple[Matrix, NDArray[np.int64]]
Ranks = Callable[[], NDArray[np.int64]]


def exact_search(
    vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None = None, ranks: Ranks | None = None
) -> Hits:
    """The k best allowed rows of each query: scores (nq, k), best first, and positions (nq, k), -1 for those missing.

    `vectors` (rows, dim), for COSINE as `normalised` gives them; `queries` (nq, dim) raw. Equal scores are ordered by
    position, or by `ranks()` (rows,), which is called only when some are equal. Runs on the calling thread.
    """
    faiss.omp_set_num_threads(1)
    queries = prepared(queries, metric)
    scores, positions = _nearest(vectors, queries, k + 1, metric, allowed)
    tied = (scores[:, :-1] == scores[:, 1:]) & (positions[:, 1:] >= 0)
    places = min(k, allowed_count(allowed, len(vectors)))
    short = (positions[:, :places] < 0).any(axis=1)
    if not tied.any() and not short.any():
        return scores[:, :k], positions[:, :k]
    rank_of = ranks() if ranks is not None else np.arange(len(vectors))
    scores, positions = best_first(scores, positions, metric, _ranks_at(rank_of, positions))
    for query in np.flatnonzero(tied[:, k - 1]):
        radius = _just_worse(scores[query, k - 1], metric)
        _, reached, at = _within(vectors, queries[query : query + 1], radius, metric, allowed)
        reached, at = best_first(reached, at, metric, rank_of[at])
        scores[query, :k], positions[query, :k] = reached[:k], at[:k]
    for query in np.flatnonzero(short):
        _add_left_out(scores[query, :places], positions[query, :places], metric, allowed, rank_of)
    return scores[:, :k], positions[:, :k]


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
    offsets, scores, positions = _within(vectors, prepared(queries, metric), np.float32(radius), metric, allowed)
    numbers = np.repeat(np.arange(len(queries)), np.diff(offsets))
    if range_filter is not None:
        limit = np.float32(range_filter)
        kept = scores <= limit if larger_is_better(metric) else scores >= limit
        numbers, scores, positions = numbers[kept], scores[kept], positions[kept]
        offsets = np.searchsorted(numbers, np.arange(len(queries) + 1))
    order = np.lexsort((positions, -scores if larger_is_better(metric) else scores, numbers))
    return offsets, scores[order], positions[order]


def _nearest(vectors: Matrix, queries: Matrix, k: int, metric: str, allowed: Bitmap | None) -> Hits:
    """Some k best rows, best first. FAISS' own function: `faiss.knn` takes no selector."""
    nq, dim = queries.shape
    scores, positions = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    pairs = (faiss.swig_ptr(queries), faiss.swig_ptr(_readable(vectors)), dim, nq, len(vectors))
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
    pairs = (faiss.swig_ptr(queries), faiss.swig_ptr(_readable(vectors)), dim, nq, len(vectors))
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
    scores[found:] = -WORST if larger_is_better(metric) else WORST


def _selector(allowed: Bitmap | None) -> faiss.IDSelector:
    """A selector in every case: without one FAISS may leave its pair-by-pair kernels."""
    return faiss.IDSelectorAll() if allowed is None else selector(allowed)


def _readable(vectors: Matrix) -> Matrix:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _just_worse(score: np.float32, metric: str) -> np.float32:
    """The next float32 on the worse side: strictly better than it means at least as good as `score`."""
    return np.float32(np.nextafter(score, np.float32(-np.inf if larger_is_better(metric) else np.inf)))


def _ranks_at(rank_of: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each position; padding comes last."""
    return np.where(positions >= 0, rank_of[positions], len(rank_of))
