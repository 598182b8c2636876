"""The stored vectors behind an index: an index proposes rows, these score them.

So a row's score is the same through every index and without one, bit for bit, and vectors lie in memory once: the
mapped column of the segment, of which a search touches only the rows proposed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap, positions_in
from mishards.index.exact import exact_search_at
from mishards.index.metrics import best_first, larger_is_better, normalised, pair_scores
from mishards.ports import Matrix

Hits = tuple[Matrix, NDArray[np.int64]]


class Stored:
    """One segment's vectors (rows, dim), as they are: not normalised. Kept, never written to.

    `unit` are the same rows normalised, for an index by COSINE that has them anyway: then nothing else is touched.
    """

    def __init__(self, vectors: Matrix, metric: str, unit: Matrix | None = None) -> None:
        self.vectors: Matrix = np.ascontiguousarray(np.asarray(vectors), dtype=np.float32)
        self.metric = metric
        self._ready = unit if metric == "COSINE" else self.vectors

    @property
    def rows(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def best(self, queries: Matrix, proposed: NDArray[np.int64], k: int) -> Hits:
        """The k best of the rows proposed (nq, n >= k), -1 for none, by exact scores; `queries` prepared."""
        scores = self._scores(queries, proposed)
        if proposed.shape[1] > 2 * k:  # sorting fewer is quicker
            order = np.argpartition(-scores if larger_is_better(self.metric) else scores, k - 1, axis=1)[:, :k]
            if len(order) > 1:  # numbers in the flat arrays, as in `best_first`
                order += np.arange(0, scores.size, scores.shape[1])[:, None]
            scores, proposed = scores.ravel()[order], proposed.ravel()[order]
        scores, positions = best_first(scores, proposed, self.metric)
        return scores[:, :k], positions[:, :k]

    def exact(self, queries: Matrix, k: int, allowed: Bitmap | None) -> Hits:
        """`exact_search` among the allowed rows; `queries` as they came."""
        chosen = np.arange(self.rows) if allowed is None else positions_in(allowed, self.rows)
        return exact_search_at(self.vectors, chosen, queries, k, self.metric)

    def _scores(self, queries: Matrix, proposed: NDArray[np.int64]) -> Matrix:
        if self._ready is not None:
            return pair_scores(self._ready, queries, proposed, self.metric)
        gathered = normalised(self.vectors[proposed.ravel()])
        numbers = np.arange(proposed.size).reshape(proposed.shape)
        return pair_scores(gathered, queries, np.where(proposed < 0, -1, numbers), self.metric)
