"""IVF_FLAT: rows in `nlist` clusters, of which a search scans the `nprobe` nearest. Small and quick to build.

A filter widens `nprobe` by the inverse of the share that it allows. A query whose clusters hold fewer than
min(k, allowed) rows scans all clusters, so no search comes back short.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap, allowed_count, selector
from mishards.index.hnsw import SCANNED_FLOATS_MAX
from mishards.index.metrics import METRICS, best_first, faiss_metric, prepared
from mishards.index.parameters import integer
from mishards.index.selectivity import widened
from mishards.ports import Matrix

# Milvus' defaults and range.
NLIST_DEFAULT = 128
NPROBE_DEFAULT = 8
NLIST_MAX = 65536

ROWS_PER_CLUSTER_MIN = 39  # fewer make poor centroids, says FAISS


class IvfFlat:
    """`ports.IndexKind` for IVF_FLAT."""

    name = "IVF_FLAT"
    metrics = METRICS

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """nlist 1-65536; a segment with few rows has fewer clusters."""
        return {"nlist": integer(params, "nlist", NLIST_DEFAULT, 1, NLIST_MAX)}

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """nprobe 1-65536; more than a segment has clusters means all."""
        return {"nprobe": integer(params, "nprobe", NPROBE_DEFAULT, 1, NLIST_MAX)}

    def worthwhile(self, rows: int, dim: int) -> bool:
        return rows * dim > SCANNED_FLOATS_MAX

    def build(self, vectors: Matrix, metric: str, params: Mapping[str, Any], threads: int, target: Path) -> None:
        rows, dim = vectors.shape
        nlist = min(self.check_build(params, dim)["nlist"], max(1, rows // ROWS_PER_CLUSTER_MIN))
        faiss.omp_set_num_threads(threads)
        measure = faiss_metric(metric)
        index = faiss.IndexIVFFlat(faiss.IndexFlat(dim, measure), dim, nlist, measure)
        index.cp.min_points_per_centroid = 1  # a single cluster may be smaller
        ready = prepared(vectors, metric)
        index.train(ready)
        index.add(ready)
        faiss.write_index(index, str(target))

    def load(self, path: Path, metric: str) -> IvfIndex:
        return IvfIndex(faiss.read_index(str(path)), metric, path.stat().st_size)


class IvfIndex:
    """A loaded IVF_FLAT index. `bytes`: of its file, which FAISS holds in memory as it is."""

    def __init__(self, index: faiss.IndexIVFFlat, metric: str, size: int) -> None:
        self._index = index
        self._metric = metric
        self.bytes = size

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        queries = prepared(queries, self._metric)
        rows, nlist = self._index.ntotal, self._index.nlist
        count = allowed_count(allowed, rows)
        nprobe = integer(params, "nprobe", NPROBE_DEFAULT, 1, NLIST_MAX)
        faiss.omp_set_num_threads(1)
        scores, positions = self._scan(queries, k, min(nlist, widened(nprobe, count, rows)), allowed)
        short = (positions[:, : min(k, count)] < 0).any(axis=1)
        if short.any():
            scores[short], positions[short] = self._scan(queries[short], k, nlist, allowed)
        return best_first(scores, positions, self._metric)

    def range_search(self, queries: Matrix, radius: float, params: Mapping[str, Any], allowed: Bitmap | None) -> None:
        return None  # rows within the radius may lie in clusters that are not scanned

    def _scan(self, queries: Matrix, k: int, nprobe: int, allowed: Bitmap | None) -> tuple[Matrix, NDArray[np.int64]]:
        probe = faiss.SearchParametersIVF(nprobe=nprobe, sel=None if allowed is None else selector(allowed))
        scores, positions = self._index.search(queries, k, params=probe)
        return scores, positions


IVF_FLAT = IvfFlat()
