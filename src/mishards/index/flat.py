"""FLAT: exact search under the name of an index. It needs no file, so it is never worthwhile to build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap
from mishards.index.metrics import METRICS
from mishards.index.stored import Stored
from mishards.ports import Matrix, Progress


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

    def build(
        self,
        vectors: Matrix,
        metric: str,
        params: Mapping[str, Any],
        threads: int,
        target: Path,
        progress: Progress | None = None,
    ) -> None:
        """An empty file: the segment's vectors are all there is to it."""
        target.touch()

    def load(self, path: Path, metric: str, vectors: Matrix) -> FlatIndex:
        return FlatIndex(Stored(vectors, metric))


class FlatIndex:
    """A loaded FLAT index: the segment's vectors, mapped."""

    bytes = 0

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        return True

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        return self._stored.exact(queries, k, allowed)


FLAT = Flat()
