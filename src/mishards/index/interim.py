"""An index for rows that have none yet: 4-bit codes of them in memory, which grow with them.

A search scans all codes with FAISS' fast scan (André, Kermarrec and Le Scouarnec 2017) and scores the rows that look
best by their vectors, so scores are those of exact search, bit for bit. Two numbers of a vector share half a byte, so
codes are a sixteenth of the vectors: fresh rows are rarely in the processor's caches, and reading a little in one go is
quicker there than walking a graph or reading the vectors. A row of 128 numbers is coded in 2.5 us, one of 384 in 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.bitmaps import Bitmap, allowed_count, only_allowed
from mishards.index.files import sample
from mishards.index.hnsw import EF_DEFAULT
from mishards.index.metrics import faiss_metric, prepared
from mishards.index.parameters import INT_MAX, integer
from mishards.index.selectivity import is_exact_better
from mishards.index.stored import Stored
from mishards.ports import Matrix

FLOATS_MIN = 1 << 18  # fewer are scanned as they are
FLOATS_MAX = 32 << 20  # half a second of encoding, 0.2 ms of scanning; more wait for the builder's index
LAG_ROWS_MIN = 256  # rows without a code until adding them is worth a copy of all codes

NUMBERS_A_CODE = 2
CODE_BITS = 4
TRAINED_ROWS_MAX = 1024
TRAINING_ROUNDS = 4
TRAINED_AGAIN = 4  # times the rows there were at the last training ...
STRANGE = 2.0  # ... or when new rows are so many times worse coded than those it was trained on
JUDGED_ROWS = 128

# Recall 0.993 and more of clusters and sentence embeddings, 0.96 and more of vectors without structure (k = 1 to 100).
PROPOSED = 10  # rows scored for each hit wanted ...
PROPOSED_MORE = 50  # ... and beyond
ALLOWED_MIN = 4  # proposed rows for each hit wanted that a filter must leave

# Of one query, on one core.
SCAN_S = 5e-12  # a number of a coded row
PROPOSE_S = 0.15e-6  # a row proposed, without its scoring ...
SCORE_S = 0.3e-9  # ... and a number of it scored


class Interim:
    """Codes of rows 0..rows-1 of vectors prepared for a metric. Never changes: `grown` gives another one."""

    def __init__(self, codes: faiss.IndexPQFastScan, metric: str, trained: int, error: float) -> None:
        self.rows = int(codes.ntotal)
        self.bytes = self.rows * int(codes.code_size)
        self._codes = codes
        self._metric = metric
        self._trained = trained  # rows there were then
        self._error = error  # mean squared, of the rows trained on

    @staticmethod
    def lags(known: Interim | None, rows: int, dim: int) -> bool:
        """Whether more of the rows should be coded."""
        if not FLOATS_MIN < rows * dim <= FLOATS_MAX:
            return False
        return known is None or rows - known.rows >= LAG_ROWS_MIN

    @staticmethod
    def grown(known: Interim | None, ready: Matrix, metric: str) -> Interim:
        """Codes of all `ready` rows, prepared for the metric. CPU-bound, up to a second."""
        faiss.omp_set_num_threads(1)
        if known is None or known._is_outgrown(ready):
            trained_on = sample(ready, TRAINED_ROWS_MAX, _among_prepared(metric))
            codes = _trained(trained_on, metric)
            codes.add(ready)
            return Interim(codes, metric, len(ready), _error(codes, trained_on))
        codes = faiss.clone_index(known._codes)  # searches go on in the old ones
        codes.add(ready[known.rows :])
        return Interim(codes, metric, known._trained, known._error)

    def over(self, ready: Matrix) -> Covering:
        """A search index over `ready`, at least `rows` rows."""
        return Covering(self._codes, self.bytes, ready, self._metric)

    def _is_outgrown(self, ready: Matrix) -> bool:
        """Whether the rows have become so many, or so different, that the codes no longer tell them apart."""
        new = sample(ready[self.rows :], JUDGED_ROWS, _among_prepared(self._metric))
        return len(ready) >= TRAINED_AGAIN * self._trained or _error(self._codes, new) > STRANGE * self._error


class Covering:
    """`ports.VectorIndex` over rows prepared for the metric: what the codes propose, and all rows without a code."""

    def __init__(self, codes: faiss.IndexPQFastScan, size: int, ready: Matrix, metric: str) -> None:
        self.rows = len(ready)
        self.bytes = size
        self._codes = codes
        self._late = np.arange(codes.ntotal, self.rows)
        self._metric = metric
        self._stored = Stored(ready, _among_prepared(metric))

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        stored, proposed = self._stored, self._proposed(k, params, count)
        query_s = self.rows * stored.dim * SCAN_S + proposed * (PROPOSE_S + stored.dim * SCORE_S)
        return 2 * proposed >= self.rows or is_exact_better(nq * query_s, count, stored, nq, k)

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        ready = prepared(queries, self._metric)
        count = allowed_count(allowed, self.rows)
        proposed = self._scan(ready, self._proposed(k, params, count))
        if len(self._late):
            proposed = np.concatenate([proposed, np.broadcast_to(self._late, (len(ready), len(self._late)))], axis=1)
        lacking = np.zeros(len(ready), np.bool_)
        if allowed is not None:
            proposed = only_allowed(proposed, allowed)
            found = proposed >= 0
            late = np.count_nonzero(found[0, found.shape[1] - len(self._late) :])
            lacking = np.count_nonzero(found, axis=1) < min(late + ALLOWED_MIN * k, count)
        scores, positions = self._stored.best(ready, proposed, k)
        lacking |= positions[:, min(k, count) - 1] < 0
        if lacking.any():  # the rows around these queries are not allowed, or no numbers to FAISS
            scores[lacking], positions[lacking] = self._stored.exact(ready[lacking], k, allowed)
        return scores, positions

    def _proposed(self, k: int, params: Mapping[str, Any], count: int) -> int:
        """How many of the coded rows are scored when `count` of all rows are allowed. More care that is asked of the
        index it stands in for (ef, level) is taken here too."""
        care = integer(params, "ef", EF_DEFAULT, 1, INT_MAX) / max(EF_DEFAULT, k)
        care = max(1.0, care) * integer(params, "level", 1, 1, INT_MAX)
        wanted = (PROPOSED * k + PROPOSED_MORE) * care * self.rows / max(1, count)
        return min(math.ceil(wanted), int(self._codes.ntotal))

    def _scan(self, queries: Matrix, proposed: int) -> NDArray[np.int64]:
        """Positions (nq, proposed) of coded rows. FAISS' own method: its wrapper costs 2 us more."""
        nq = len(queries)
        scores, positions = np.empty((nq, proposed), np.float32), np.empty((nq, proposed), np.int64)
        faiss.omp_set_num_threads(1)
        self._codes.search_c(nq, faiss.swig_ptr(queries), proposed, faiss.swig_ptr(scores), faiss.swig_ptr(positions))
        return positions


def _trained(rows: Matrix, metric: str) -> faiss.IndexPQFastScan:
    dim = int(rows.shape[1])
    codes = faiss.IndexPQFastScan(
        dim, dim // NUMBERS_A_CODE if dim % NUMBERS_A_CODE == 0 else dim, CODE_BITS, faiss_metric(metric)
    )
    codes.pq.cp.niter = TRAINING_ROUNDS
    codes.pq.cp.min_points_per_centroid = 1  # or it warns of few rows
    codes.train(rows)
    return codes


def _error(codes: faiss.IndexPQFastScan, rows: Matrix) -> float:
    """Mean squared distance of the rows (n, dim) from what their codes stand for."""
    rows = rows[:JUDGED_ROWS]
    return float(np.square(rows - codes.pq.decode(codes.pq.compute_codes(rows))).sum(axis=1).mean())


def _among_prepared(metric: str) -> str:
    """The metric among rows and queries that are normalised where they must be."""
    return "IP" if metric == "COSINE" else metric
