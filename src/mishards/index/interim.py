"""An index for rows that have none yet: a small graph in memory that grows with them.

It covers the first rows; those that came since are scored one by one. What the walk meets is scored by the vectors, so
scores are those of exact search, bit for bit. A search touches a few hundred rows instead of all: fresh rows are rarely
in the processor's cache, and scoring 16,000 of 128 numbers costs as much as the whole rest of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap
from mishards.index.hnsw import EF_DEFAULT, SCANNED_FLOATS_MAX, HnswIndex, grow
from mishards.index.metrics import faiss_metric, prepared
from mishards.index.parameters import INT_MAX, integer
from mishards.index.stored import Stored
from mishards.ports import Matrix

FLOATS_MAX = 4 << 20  # a second of building; more rows get the builder's index, or are searched exactly until then
METRICS = frozenset({"L2", "COSINE"})  # a graph as thin as this loses inner products of vectors of unequal lengths
LAG_ROWS_MIN = 512  # rows outside the graph until adding them is worth a copy of it

# 20 us a row of 128 numbers, 60 of 384; recall 0.98 of sentence embeddings and 0.99 of clusters (16,384 rows, k = 10).
LINKS = 16
EF_CONSTRUCTION = 60


class Interim:
    """The graph over rows 0..rows-1 of vectors prepared for a metric. Never changes: `grown` gives another one."""

    def __init__(self, graph: faiss.IndexHNSWFlat, metric: str) -> None:
        self.rows = int(graph.ntotal)
        self.bytes = self.rows * (4 * graph.d + 2 * LINKS * 4)
        self._graph = graph
        self._metric = metric

    @staticmethod
    def lags(known: Interim | None, rows: int, dim: int, metric: str) -> bool:
        """Whether the graph should cover more of the rows."""
        if metric not in METRICS or not SCANNED_FLOATS_MAX < rows * dim <= FLOATS_MAX:
            return False
        return known is None or rows - known.rows >= LAG_ROWS_MIN

    @staticmethod
    def grown(known: Interim | None, ready: Matrix, metric: str) -> Interim:
        """The graph over all `ready` rows, prepared for the metric. CPU-bound, up to a second."""
        dim = ready.shape[1]
        if known is None:
            graph = faiss.IndexHNSWFlat(dim, LINKS, faiss_metric(metric))
        else:
            graph = faiss.clone_index(known._graph)  # searches go on in the old one
        grow(graph, ready[graph.ntotal :], _among_prepared(metric), EF_CONSTRUCTION, threads=1, progress=None)
        return Interim(graph, metric)

    def over(self, ready: Matrix) -> Covering:
        """A search index over `ready`, at least `rows` rows."""
        return Covering(self._graph, self.bytes, ready, self._metric)


class Covering(HnswIndex):
    """`ports.VectorIndex` over rows prepared for the metric: what a walk proposes, and all rows after the graph's."""

    def __init__(self, graph: faiss.IndexHNSWFlat, size: int, ready: Matrix, metric: str) -> None:
        super().__init__(graph, size, Stored(ready, _among_prepared(metric)), refines=False)
        self.rows = len(ready)
        self._covered = int(graph.ntotal)
        self._metric = metric

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        return super().prefers_exact(count, nq, k, _own(params, k))

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        return super().search(prepared(queries, self._metric), k, _own(params, k), allowed)

    def _walk(self, queries: Matrix, wanted: int, ef: int) -> NDArray[np.int64]:
        met = super()._walk(queries, wanted, ef)
        late = np.arange(self._covered, self.rows)
        return np.concatenate([met, np.tile(late, (len(queries), 1))], axis=1)


def _among_prepared(metric: str) -> str:
    """The metric among rows and queries that are normalised where they must be."""
    return "IP" if metric == "COSINE" else metric


def _own(params: Mapping[str, Any], k: int) -> dict[str, int]:
    """The parameters of the index that it stands in for: more care asked there (ef, level) is taken here too."""
    usual = max(EF_DEFAULT, k)
    return {"ef": max(usual, integer(params, "ef", usual, 1, INT_MAX)) * integer(params, "level", 1, 1, INT_MAX)}
