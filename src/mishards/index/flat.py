"""FLAT: exact search under the name of an index. Its file repeats the vectors, so it is never worthwhile to build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap
from mishards.index.exact import exact_range, exact_search
from mishards.index.metrics import METRICS, faiss_metric, prepared
from mishards.ports import Matrix


class Flat:
    """`ports.IndexKind` for FLAT."""

    name = "FLAT"
    metrics = METRICS

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        return {}

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        return {}

    def worthwhile(self, rows: int, dim: int) -> bool:
        return False

    def build(self, vectors: Matrix, metric: str, params: Mapping[str, Any], threads: int, target: Path) -> None:
        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlat(vectors.shape[1], faiss_metric(metric))
        index.add(prepared(vectors, metric))
        faiss.write_index(index, str(target))

    def load(self, path: Path, metric: str) -> FlatIndex:
        return FlatIndex(faiss.read_index(str(path)), metric)


class FlatIndex:
    """A loaded FLAT index."""

    def __init__(self, index: faiss.IndexFlat, metric: str) -> None:
        self._index = index  # owns the memory of `vectors`
        self._vectors = stored_vectors(index)
        self._metric = metric

    @property
    def bytes(self) -> int:
        return self._vectors.nbytes

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        return exact_search(self._vectors, queries, k, self._metric, allowed)

    def range_search(
        self, queries: Matrix, radius: float, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[NDArray[np.int64], Matrix, NDArray[np.int64]]:
        return exact_range(self._vectors, queries, radius, None, self._metric, allowed)


def stored_vectors(index: faiss.IndexFlat) -> Matrix:
    """The vectors (rows, dim) inside a FAISS flat index: a view, valid as long as the index."""
    flat: Matrix = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return flat.reshape(index.ntotal, index.d)


FLAT = Flat()
