"""The metrics L2 (squared, smaller is better), IP and COSINE (larger is better), as Milvus reports them."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.ports import Matrix

METRICS = frozenset({"L2", "IP", "COSINE"})
WORST = np.finfo(np.float32).max  # as FAISS scores an empty place


def larger_is_better(metric: str) -> bool:
    return metric != "L2"


def faiss_metric(metric: str) -> int:
    """FAISS' number of a metric; COSINE is the inner product of normalised vectors."""
    return int(faiss.METRIC_INNER_PRODUCT if larger_is_better(metric) else faiss.METRIC_L2)


def worst_score(metric: str) -> float:
    """The score of rows whose own is beyond float32, and of places without a row."""
    return float(-WORST if larger_is_better(metric) else WORST)


def normalised(vectors: Matrix) -> Matrix:
    """A copy (rows, dim) scaled to length 1, each row by itself; zero rows stay zero, so that they score 0."""
    copy = np.array(vectors, dtype=np.float32, order="C")
    faiss.normalize_L2(copy)
    return copy


def prepared(vectors: Matrix, metric: str) -> Matrix:
    """Rows or queries as FAISS wants them for a metric: normalised for COSINE, else as they are, C-ordered."""
    return normalised(vectors) if metric == "COSINE" else np.ascontiguousarray(vectors, dtype=np.float32)


def pair_scores(vectors: Matrix, queries: Matrix, positions: NDArray[np.int64], metric: str) -> Matrix:
    """The exact scores (nq, n) of the rows at `positions` (nq, n), bit for bit those of `exact_search`; -1: the worst.

    `vectors` (rows, dim) C-ordered float32 and `queries` (nq, dim), both as `prepared` gives them.
    """
    nq, wanted = positions.shape
    scores = np.empty((nq, wanted), np.float32)
    score = faiss.fvec_inner_products_by_idx if larger_is_better(metric) else faiss.fvec_L2sqr_by_idx
    places = (faiss.swig_ptr(scores), faiss.swig_ptr(queries), faiss.swig_ptr(vectors), faiss.swig_ptr(positions))
    faiss.omp_set_num_threads(1)
    score(*places, vectors.shape[1], nq, wanted)
    return with_worst(scores, metric)


def with_worst(scores: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """The scores, those beyond float32 replaced by the worst."""
    beyond = ~np.isfinite(scores)
    if beyond.any():
        scores[beyond] = worst_score(metric)
    return scores


def best_first(
    scores: Matrix, positions: NDArray[np.int64], metric: str, ranks: NDArray[np.int64] | None = None
) -> tuple[Matrix, NDArray[np.int64]]:
    """Each row's hits sorted by score, equal scores by position (or by `ranks`, positions' own); -1 stays last.

    `scores`, `positions` (nq, k) or (n,). FAISS leaves the order of equal scores open.
    """
    order = np.lexsort(
        (positions.view(np.uint64) if ranks is None else ranks, -scores if larger_is_better(metric) else scores),
        axis=-1,
    )
    if order.ndim == 2:  # numbers in the flat arrays: np.take_along_axis costs 6 us more
        order += np.arange(0, order.size, order.shape[1])[:, None]
    return scores.ravel()[order], positions.ravel()[order]


def ranks_at(rank_of: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each position; padding comes last."""
    return np.where(positions >= 0, rank_of[positions], len(rank_of))
