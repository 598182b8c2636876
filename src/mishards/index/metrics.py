"""The metrics L2 (squared, smaller is better), IP and COSINE (larger is better), as Milvus reports them."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.ports import Matrix

METRICS = frozenset({"L2", "IP", "COSINE"})


def larger_is_better(metric: str) -> bool:
    return metric != "L2"


def faiss_metric(metric: str) -> int:
    """FAISS' number of a metric; COSINE is the inner product of normalised vectors."""
    return int(faiss.METRIC_INNER_PRODUCT if larger_is_better(metric) else faiss.METRIC_L2)


def normalised(vectors: Matrix) -> Matrix:
    """A copy (rows, dim) scaled to length 1, each row by itself; zero rows stay zero, so that they score 0."""
    copy = np.array(vectors, dtype=np.float32, order="C")
    faiss.normalize_L2(copy)
    return copy


def prepared(vectors: Matrix, metric: str) -> Matrix:
    """Rows or queries as FAISS wants them for a metric: normalised for COSINE, else as they are, C-ordered."""
    return normalised(vectors) if metric == "COSINE" else np.ascontiguousarray(vectors, dtype=np.float32)


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
    return np.take_along_axis(scores, order, axis=-1), np.take_along_axis(positions, order, axis=-1)
