"""An index for rows that have none: 4-bit codes of them in memory, of the rows of several sources together.

A search scans all codes in one go with FAISS' fast scan (André, Kermarrec and Le Scouarnec 2017) and scores the rows
that look best by their vectors, so scores are those of exact search, bit for bit. Two numbers of a vector share half a
byte, so codes are a sixteenth of the vectors: fresh rows are rarely in the processor's caches, and reading a little in
one go is quicker there than walking a graph or reading the vectors. What a search spends on a source beside that is
Python, and more than the scan: hence one scan for many small sources. A row of 128 numbers is coded in 2.5 us, one of
384 in 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.files import sample
from mishards.index.hnsw import EF_DEFAULT
from mishards.index.metrics import faiss_metric, prepared, score_pairs, with_worst
from mishards.index.parameters import INT_MAX, integer
from mishards.index.selectivity import EXACT_WORTH, exact_cost_s
from mishards.ports import Matrix

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

Codes = NDArray[np.uint8]  # (rows, bytes)
Mask = NDArray[np.bool_]


class Codebook:
    """How vectors, prepared for a metric, become codes. Learned from some of them; never changes."""

    def __init__(self, matrices: Sequence[Matrix], metric: str) -> None:
        self.trained = sum(len(ready) for ready in matrices)  # rows there were then
        self._among = _among_prepared(metric)
        self._metric = metric
        rows = np.concatenate(
            [sample(ready, math.ceil(TRAINED_ROWS_MAX * len(ready) / self.trained), self._among) for ready in matrices]
        )
        dim = int(rows.shape[1])
        self._quantizer = faiss.ProductQuantizer(
            dim, dim // NUMBERS_A_CODE if dim % NUMBERS_A_CODE == 0 else dim, CODE_BITS
        )
        self._quantizer.cp.niter = TRAINING_ROUNDS
        self._quantizer.cp.min_points_per_centroid = 1  # or it warns of few rows
        faiss.omp_set_num_threads(1)
        self._quantizer.train(rows)
        self._error = self._error_of(sample(rows, JUDGED_ROWS, self._among))

    def codes(self, ready: Matrix) -> Codes:
        """Those of the rows. CPU-bound."""
        faiss.omp_set_num_threads(1)
        codes: Codes = self._quantizer.compute_codes(np.ascontiguousarray(ready))
        return codes

    def suits(self, rows: int, new: Sequence[Matrix]) -> bool:
        """Whether it can still tell rows apart, now that there are so many, among them these new ones."""
        if rows >= TRAINED_AGAIN * self.trained:
            return False
        judged = (sample(ready, JUDGED_ROWS, self._among) for ready in new if len(ready))
        return all(self._error_of(ready) <= STRANGE * self._error for ready in judged)

    def packed(self, codes: Sequence[Codes]) -> faiss.IndexPQFastScan:
        """All of them, to be scanned."""
        plain = faiss.IndexPQ(self._quantizer.d, self._quantizer.M, CODE_BITS, faiss_metric(self._metric))
        plain.pq = self._quantizer
        plain.is_trained = True
        plain.add_sa_codes(np.concatenate(codes))
        return faiss.IndexPQFastScan(plain)

    def _error_of(self, rows: Matrix) -> float:
        """Mean squared distance of the rows (n, dim) from what their codes stand for."""
        return float(np.square(rows - self._quantizer.decode(self.codes(rows))).sum(axis=1).mean())


class Found(NamedTuple):
    """Rows that may be among the best: those of the first part, then those of the second ..., in any order."""

    queries: NDArray[np.int32]
    scores: NDArray[np.float32]
    positions: NDArray[np.int64]  # in the part
    ends: list[int]  # of each part's


class Part(NamedTuple):
    """A source: its vectors (rows, dim), prepared for the metric, of which the first `coded` have the codes from
    `start` on."""

    start: int
    coded: int
    ready: Matrix


class Interim:
    """Codes of rows of several sources, one after the other. Never changes."""

    def __init__(self, book: Codebook, codes: Sequence[Codes], metric: str) -> None:
        self.rows = sum(len(each) for each in codes)
        self.bytes = sum(each.nbytes for each in codes)
        self._packed = book.packed(codes)
        self._metric = metric

    def over(self, parts: Sequence[Part]) -> Covering:
        """A search index over the parts. There may be codes of other rows, too."""
        return Covering(self._packed, parts, self._metric)


class Covering:
    """Searches all parts together: what the codes propose, and all rows without a code."""

    def __init__(self, packed: faiss.IndexPQFastScan, parts: Sequence[Part], metric: str) -> None:
        self.rows = sum(len(part.ready) for part in parts)
        self._packed = packed
        self._coded = int(packed.ntotal)
        self._parts = parts
        self._late = [np.arange(part.coded, len(part.ready)) for part in parts]
        self._late_rows = sum(len(late) for late in self._late)
        self._ends = np.array([[part.start, part.start + part.coded] for part in parts]).ravel()
        self._metric = metric

    def cost_s(self, nq: int, proposed: int) -> float:
        """An estimate of the time on one core, when so many coded rows are scored for each query."""
        dim = int(self._packed.d)
        scored = self._late_rows + proposed
        return nq * (self._coded * dim * SCAN_S + scored * (PROPOSE_S + dim * SCORE_S))

    def count(self, allowed: Sequence[Mask | None]) -> int:
        """How many rows the parts' masks (rows,) allow; None: all of the part."""
        return self.rows - sum(len(mask) - int(np.count_nonzero(mask)) for mask in allowed if mask is not None)

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        """Whether to score all `count` allowed rows instead."""
        proposed = self._proposed(k, params, count)
        if 2 * k >= count or 2 * proposed >= self.rows:
            return True
        exact_s = exact_cost_s(count, self.rows, int(self._packed.d), nq, unit=False)
        return exact_s < (EXACT_WORTH if count < self.rows else 1.0) * self.cost_s(nq, proposed)

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Sequence[Mask | None], count: int
    ) -> tuple[Found, Mask]:
        """What was found among the `count` rows that the masks allow, and for which queries (nq,) it is not enough, so
        that they must be searched exactly. Among what is found are the best, but for what codes blur."""
        ready = prepared(queries, self._metric)
        nq = len(ready)
        proposed = self._proposed(k, params, count)
        asked, places = self._scan(ready, proposed)
        found, late = self._scored(ready, asked, places, allowed)
        needed = min(k if count == self.rows else late + ALLOWED_MIN * k, count)
        each = np.bincount(found.queries, minlength=nq) if nq > 1 else np.array([len(found.queries)])
        return found, each < needed

    def _scored(
        self, ready: Matrix, asked: NDArray[np.int64], places: NDArray[np.int64], allowed: Sequence[Mask | None]
    ) -> tuple[Found, int]:
        """What is allowed of these coded rows, for these queries, and of all without a code; how many of the latter."""
        nq = len(ready)
        room = len(places) + nq * self._late_rows
        queries, positions, scores = np.zeros(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
        cuts = np.searchsorted(places, self._ends).tolist()
        end = late_found = 0
        ends = []
        for number, (part, late, mask) in enumerate(zip(self._parts, self._late, allowed, strict=True)):
            coded = slice(cuts[2 * number], cuts[2 * number + 1])
            rows, whose = places[coded] - part.start, asked[coded]
            if mask is not None:
                kept = mask[rows]
                rows, whose, late = rows[kept], whose[kept], late[mask[late]]
            start, middle = end, end + len(rows)
            end = middle + nq * len(late)
            positions[start:middle] = rows
            if nq > 1:
                queries[start:middle] = whose
                queries[middle:end] = np.arange(nq).repeat(len(late))
            positions[middle:end].reshape(nq, -1)[:] = late
            score_pairs(part.ready, ready, queries[start:end], positions[start:end], scores[start:end], self._metric)
            ends.append(end)
            late_found += len(late)
        return Found(
            queries[:end].astype(np.int32), with_worst(scores[:end], self._metric), positions[:end], ends
        ), late_found

    def _proposed(self, k: int, params: Mapping[str, Any], count: int) -> int:
        """How many of the coded rows are scored when `count` of all rows are allowed. More care that is asked of the
        index it stands in for (ef, level) is taken here too."""
        care = integer(params, "ef", EF_DEFAULT, 1, INT_MAX) / max(EF_DEFAULT, k)
        care = max(1.0, care) * integer(params, "level", 1, 1, INT_MAX)
        wanted = (PROPOSED * k + PROPOSED_MORE) * care * max(1.0, self._coded / max(1, count))
        return min(math.ceil(wanted), self._coded)

    def _scan(self, queries: Matrix, proposed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The coded rows proposed, in order, and which query each is for. FAISS' own method: its wrapper costs 2 us."""
        nq = len(queries)
        scores, places = np.empty((nq, proposed), np.float32), np.empty((nq, proposed), np.int64)
        faiss.omp_set_num_threads(1)
        self._packed.search_c(nq, faiss.swig_ptr(queries), proposed, faiss.swig_ptr(scores), faiss.swig_ptr(places))
        flat = places.ravel()
        if nq == 1:
            flat.sort()
            return np.zeros(proposed, np.int64), flat
        order = np.argsort(flat)
        return order // proposed, flat[order]


def _among_prepared(metric: str) -> str:
    """The metric among rows and queries that are normalised where they must be."""
    return "IP" if metric == "COSINE" else metric
