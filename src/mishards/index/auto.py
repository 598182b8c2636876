"""AUTOINDEX: we choose, from what was measured on sentence embeddings (62,666 x 384) and clusters (200,000 x 128).

- few rows: none, exact search is as fast;
- up to GRAPH_FLOATS_MAX: a graph over fp16 codes: as exact as over float32 there, 15 to 25 % faster, half the memory,
  and built in half the time of HNSW's defaults. Where fp16 would blur the distances between neighbours, over float32;
- more: SCANN, which is built many times faster than a graph of that size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index import files
from mishards.index.bitmaps import Bitmap
from mishards.index.hnsw import HNSW, HnswIndex, build_coded, open_graph
from mishards.index.ivf import NLIST_MAX, SCANN, IvfIndex
from mishards.index.metrics import METRICS
from mishards.index.parameters import INT_MAX, check_at_least_k, integer, optional_integer
from mishards.ports import Matrix, Progress

GRAPH_FLOATS_MAX = 96 << 20  # about a minute of two cores
LINKS = 16
EF_CONSTRUCTION = 100
EF_USUAL = 64
EF_PER_HIT = 1.5  # for a recall of 0.95 at k = 100
LEVEL_MAX = 10

SAMPLED_ROWS = 2048
HALF_MAX = 60_000.0  # fp16 ends at 65,504
BLUR_MAX = 1e-3  # of the squared distance between neighbours


class AutoIndex:
    """`ports.IndexKind` for AUTOINDEX. Build parameters are ours, whatever is sent."""

    name = "AUTOINDEX"
    metrics = METRICS

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        return {}

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """level 1-10: that many times the usual breadth; or ef >= k, which sets it."""
        level = integer(params, "level", 1, 1, LEVEL_MAX)
        ef = optional_integer(params, "ef", 1, INT_MAX)
        if ef is None:
            return {"level": level}
        return {"level": level, "ef": check_at_least_k("ef", ef, k)}

    def worthwhile(self, rows: int, dim: int) -> bool:
        return HNSW.worthwhile(rows, dim)

    def build(
        self,
        vectors: Matrix,
        metric: str,
        params: Mapping[str, Any],
        threads: int,
        target: Path,
        progress: Progress | None = None,
    ) -> None:
        faiss.omp_set_num_threads(threads)
        if vectors.size > GRAPH_FLOATS_MAX:
            SCANN.build(vectors, metric, {}, threads, target, progress)
        elif fits_half(vectors, metric):
            build_coded(vectors, metric, "FP16", LINKS, EF_CONSTRUCTION, threads, target, progress)
        else:
            HNSW.build(vectors, metric, {"M": LINKS, "efConstruction": EF_CONSTRUCTION}, threads, target, progress)

    def load(self, path: Path, metric: str, vectors: Matrix) -> AutoIndexed:
        """Which index it is its file says."""
        if files.holds_graph(path):
            return AutoIndexed(open_graph(path, metric, vectors))
        return AutoIndexed(SCANN.load(path, metric, vectors))


class AutoIndexed:
    """The index chosen, with AUTOINDEX' parameters translated to its own."""

    def __init__(self, index: HnswIndex | IvfIndex) -> None:
        self._index = index
        self.bytes = index.bytes

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        return self._index.prefers_exact(count, nq, k, self._own(params, k))

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        return self._index.search(queries, k, self._own(params, k), allowed)

    def _own(self, params: Mapping[str, Any], k: int) -> dict[str, int]:
        usual = max(EF_USUAL, math.ceil(EF_PER_HIT * k))
        ef = integer(params, "ef", usual * integer(params, "level", 1, 1, LEVEL_MAX), 1, INT_MAX)
        if isinstance(self._index, HnswIndex):
            return {"ef": ef}
        return {"nprobe": min(NLIST_MAX, math.ceil(self._index.usual_nprobe(k) * ef / usual))}


def fits_half(vectors: Matrix, metric: str) -> bool:
    """Whether rounding to fp16 leaves the distances between near rows as they are. From a sample, and all extremes."""
    if metric != "COSINE" and not -HALF_MAX < vectors.min() <= vectors.max() < HALF_MAX:
        return False
    rows = files.sample(vectors, SAMPLED_ROWS, metric)
    rounded = rows.astype(np.float16).astype(np.float32)
    blur = np.median(((rows - rounded) ** 2).sum(axis=1))
    apart, _ = faiss.knn(rows, rows, 2)
    return bool(blur <= BLUR_MAX * np.median(apart[:, -1]))


AUTOINDEX = AutoIndex()
