"""HNSW: a navigable graph over the rows (Malkov and Yashunin 2016), the index for speed.

A walk keeps the `ef` best rows it has met. Under a filter it walks over all rows but may return only allowed ones, so
`ef` is widened by the inverse of their share; a walk that still finds too few (a narrow filter, a cut-off part of the
graph, k near the number of rows) is replaced by exact search over the same vectors. So a search returns min(k, allowed)
rows always.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.errors import invalid
from mishards.index.bitmaps import Bitmap, allowed_count, selector
from mishards.index.exact import exact_search
from mishards.index.flat import stored_vectors
from mishards.index.metrics import METRICS, best_first, faiss_metric, prepared
from mishards.index.parameters import INT_MAX, integer
from mishards.index.selectivity import widened
from mishards.ports import Matrix

# Milvus' own for AUTOINDEX.
M_DEFAULT = 18
EF_CONSTRUCTION_DEFAULT = 240
EF_DEFAULT = 64

# Below it one core scans all vectors in about the time of a walk (under 0.1 ms).
SCANNED_FLOATS_MAX = 1 << 19


class Hnsw:
    """`ports.IndexKind` for HNSW."""

    name = "HNSW"
    metrics = METRICS

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """M 2-2048: links of a row (twice as many on the lowest level); efConstruction: breadth of a walk on insert."""
        return {
            "M": integer(params, "M", M_DEFAULT, 2, 2048),
            "efConstruction": integer(params, "efConstruction", EF_CONSTRUCTION_DEFAULT, 1, INT_MAX),
        }

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """ef >= k."""
        ef = integer(params, "ef", max(EF_DEFAULT, k), 1, INT_MAX)
        if ef < k:
            raise invalid(f"ef({ef}) should be larger than k({k})")
        return {"ef": ef}

    def worthwhile(self, rows: int, dim: int) -> bool:
        return rows * dim > SCANNED_FLOATS_MAX

    def build(self, vectors: Matrix, metric: str, params: Mapping[str, Any], threads: int, target: Path) -> None:
        checked = self.check_build(params, vectors.shape[1])
        faiss.omp_set_num_threads(threads)
        index = faiss.IndexHNSWFlat(vectors.shape[1], checked["M"], faiss_metric(metric))
        index.hnsw.efConstruction = checked["efConstruction"]
        index.add(prepared(vectors, metric))
        faiss.write_index(index, str(target))

    def load(self, path: Path, metric: str) -> HnswIndex:
        return HnswIndex(faiss.read_index(str(path)), metric, path.stat().st_size)


class HnswIndex:
    """A loaded HNSW index. `bytes`: of its file, which FAISS holds in memory as it is."""

    def __init__(self, index: faiss.IndexHNSW, metric: str, size: int) -> None:
        self._index = index
        self._vectors = stored_vectors(faiss.downcast_index(index.storage))
        self._metric = metric
        self._scored_by = "L2" if metric == "L2" else "IP"  # the stored vectors are prepared for the metric
        self.bytes = size

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        rows = len(self._vectors)
        count = allowed_count(allowed, rows)
        queries = prepared(queries, self._metric)
        ef = max(k, integer(params, "ef", EF_DEFAULT, 1, INT_MAX))
        faiss.omp_set_num_threads(1)
        chosen = None if allowed is None else selector(allowed)
        walk = faiss.SearchParametersHNSW(efSearch=min(rows, widened(ef, count, rows)), sel=chosen)
        scores, positions = self._index.search(queries, k, params=walk)
        short = (positions[:, : min(k, count)] < 0).any(axis=1)
        if short.any():
            found = exact_search(self._vectors, queries[short], k, self._scored_by, allowed)
            scores[short], positions[short] = found
        return best_first(scores, positions, self._metric)

    def range_search(self, queries: Matrix, radius: float, params: Mapping[str, Any], allowed: Bitmap | None) -> None:
        return None  # a walk cannot tell when it has met all rows within the radius


HNSW = Hnsw()
