"""Codes of the rows of one segment or block of fresh rows, kept for the interim indexes that they are part of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mishards.index.interim import Codebook, Codes
from mishards.ports import Matrix

Key = tuple[int, str]  # of the field, and the metric


class Interims:
    """Read on any thread. Codes are added by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[Codebook, Codes]] = {}

    @property
    def bytes(self) -> int:
        return sum(codes.nbytes for _, codes in list(self._known.values()))

    def book(self, key: Key) -> Codebook | None:
        """What the rows coded so far were coded with."""
        known = self._known.get(key)
        return None if known is None else known[0]

    def rows(self, key: Key) -> int:
        """How many rows are coded."""
        known = self._known.get(key)
        return 0 if known is None else len(known[1])

    def codes(self, key: Key, book: Codebook, ready: Matrix) -> Codes:
        """Those of all rows, which are prepared for the metric; the new ones are coded. CPU-bound."""
        known_book, known = self._known.get(key, (None, None))
        parts: Sequence[Codes] = [known] if known is not None and known_book is book else []
        coded = sum(map(len, parts))
        if coded < len(ready):
            parts = [*parts, book.codes(ready[coded:])]
            self._known[key] = (book, parts[0] if len(parts) == 1 else np.concatenate(parts))
        return self._known[key][1][: len(ready)]
