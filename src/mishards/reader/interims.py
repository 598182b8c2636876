"""The interim indexes of one segment or block of fresh rows: what stands in until the builder's index is there (P9)."""

from __future__ import annotations

from collections.abc import Callable

from mishards.index.interim import Covering, Interim
from mishards.ports import Matrix

Key = tuple[int, str]  # of the field, and the metric


class Interims:
    """Read and replaced on any thread. They are made by `grow` alone, which one thread calls at a time."""

    def __init__(self) -> None:
        self._known: dict[Key, Interim] = {}
        self._covering: dict[Key, tuple[Interim, Covering]] = {}  # the last one handed out

    @property
    def bytes(self) -> int:
        return sum(interim.bytes for interim in list(self._known.values()))

    def covered(self, field_id: int, metric: str, rows: int) -> int:
        """How many of the first `rows` rows are indexed."""
        known = self._known.get((field_id, metric))
        return 0 if known is None or known.rows > rows else known.rows

    def over(self, field_id: int, metric: str, rows: int, ready: Callable[[], Matrix]) -> Covering | None:
        """An index over the first `rows` rows, which `ready` gives prepared for the metric; None: search exactly."""
        key = (field_id, metric)
        known = self._known.get(key)
        if known is None or known.rows > rows:
            return None
        kept = self._covering.get(key)
        if kept is None or kept[0] is not known or kept[1].rows != rows:
            kept = self._covering[key] = (known, known.over(ready()))
        return kept[1]

    def lags(self, field_id: int, metric: str, rows: int, dim: int) -> bool:
        """Whether `grow` is worth its time."""
        return Interim.lags(self._known.get((field_id, metric)), rows, dim)

    def grow(self, field_id: int, metric: str, ready: Matrix) -> None:
        """Index the rows, which are prepared for the metric. CPU-bound."""
        key = (field_id, metric)
        known = self._known.get(key)
        if Interim.lags(known, *ready.shape):
            self._known[key] = Interim.grown(known, ready, metric)
