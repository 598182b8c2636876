"""An index for rows that have none: 4-bit codes of them in memory, of the rows of several sources together.

A search scans all codes in one go with FAISS' fast scan (André, Kermarrec and Le Scouarnec 2017) and scores the rows
that look best by their vectors, so scores are those of exact search, bit for bit. Two numbers of a vector share half a
byte, so codes are a sixteenth of the vectors: fresh rows are rarely in the processor's caches, and reading a little in
one go is quicker there than walking a graph or reading the vectors. What a search spends on a source beside that is
Python, and more than the scan: hence one call of FAISS, which scans, scores and sorts, for all small sources. It wants
their vectors side by side, so those of several are copied. A row of 128 numbers is coded in 2.5 us, one of 384 in 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.index.files import flat_over, sample
from mishards.index.hnsw import EF_DEFAULT
from mishards.index.metrics import WORST, faiss_metric, larger_is_better, pair_scores, prepared
from mishards.index.parameters import INT_MAX, integer
from mishards.index.selectivity import EXACT_WORTH, exact_cost_s
from mishards.ports import Matrix

NUMBERS_A_CODE = 2
CODE_BITS = 4
TRAINED_ROWS_MAX = 1024
TRAINING_ROUNDS = 4
TRAINED_AGAIN = 4  # times the rows there were at the last training ...
UNUSUAL = 1e4  # nothing is learned from vectors a hundred times as long as most
STRANGE = 2.0  # ... or when new rows are so many times worse coded than those it was trained on
JUDGED_ROWS = 128

# Recall 0.993 and more of clusters and sentence embeddings, 0.96 and more of vectors without structure (k = 1 to 100).
PROPOSED = 10  # rows scored for each hit wanted ...
PROPOSED_MORE = 50  # ... and beyond
ALLOWED_MIN = 4  # proposed rows for each hit wanted that a filter must leave
TIES = 8  # more of the best than wanted: of equals the merge takes those with the smallest keys

# Of one query, on one core.
SCAN_S = 5e-12  # a number of a coded row
PROPOSE_S = 0.12e-6  # a row proposed, without its scoring ...
SCORE_S = 0.3e-9  # ... and a number of it scored

Codes = NDArray[np.uint8]  # (rows, bytes)
Mask = NDArray[np.bool_]


class Codebook:
    """How vectors, prepared for a metric, become codes. Learned from some of them; never changes."""

    def __init__(self, matrices: Sequence[Matrix], metric: str) -> None:
        self.trained = sum(len(ready) for ready in matrices)  # rows there were then
        self._among = _among_prepared(metric)
        self._metric = metric
        rows = _usual(
            np.concatenate(
                [sample(each, math.ceil(TRAINED_ROWS_MAX * len(each) / self.trained), self._among) for each in matrices]
            )
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
        """The usual squared distance of the rows (n, dim) from what their codes stand for."""
        return float(np.median(_squares(rows - self._quantizer.decode(self.codes(rows)))))


class Found(NamedTuple):
    """Rows that may be among the best, in any order: at least the k best of each query, if there are so many."""

    queries: NDArray[np.int64]
    scores: NDArray[np.float32]
    parts: NDArray[np.int64]  # number of the part
    positions: NDArray[np.int64]  # in the part


class Coded(NamedTuple):
    """What of a source is coded: its vectors (rows, dim), prepared for the metric, their codes, and which of the rows
    are worth it, ascending (None: all)."""

    ready: Matrix
    codes: Codes
    rows: NDArray[np.int64] | None = None


class Part(NamedTuple):
    """A source as one version sees it: its vectors (rows, dim), prepared for the metric, which rows are asked for
    (None: all), and the number of what is coded of it (None: nothing)."""

    ready: Matrix
    alive: Mask | None
    coded: int | None


class Interim:
    """Codes of rows of several sources, one after the other. Never changes."""

    def __init__(self, book: Codebook, coded: Sequence[Coded], metric: str) -> None:
        self.metric = metric
        self.rows_of = [np.arange(len(each.ready)) if each.rows is None else each.rows for each in coded]
        self.starts = np.cumsum([0, *map(len, self.rows_of)])
        self._row_at = np.concatenate(self.rows_of)
        codes = [each.codes if each.rows is None else each.codes[each.rows] for each in coded]
        vectors = [each.ready if each.rows is None else each.ready[each.rows] for each in coded]
        self._vectors = np.ascontiguousarray(vectors[0]) if len(vectors) == 1 else np.concatenate(vectors)
        self._index = faiss.IndexRefine(book.packed(codes), flat_over(self._vectors, metric))
        copied = 0 if np.may_share_memory(self._vectors, coded[0].ready) else self._vectors.nbytes
        self.bytes = sum(each.nbytes for each in codes) + copied

    @property
    def rows(self) -> int:
        return len(self._row_at)

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    def over(self, parts: Sequence[Part]) -> Covering:
        """A search index over the parts. There may be codes of other rows, too."""
        return Covering(self, parts)

    def search(self, queries: Matrix, wanted: int, proposed: int) -> tuple[Matrix, NDArray[np.int64]]:
        """The best of the rows whose codes look best: scores (nq, wanted), best first, and places. FAISS' own method:
        its wrapper costs 2 us."""
        nq = len(queries)
        scores, places = np.empty((nq, wanted), np.float32), np.empty((nq, wanted), np.int64)
        found = (faiss.swig_ptr(scores), faiss.swig_ptr(places), _breadth(proposed / wanted))
        faiss.omp_set_num_threads(1)
        self._index.search_c(nq, faiss.swig_ptr(queries), wanted, *found)
        return scores, places

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of which source is what is coded there, and which row of it."""
        return np.searchsorted(self.starts, places, side="right") - 1, self._row_at[places]


class Covering:
    """Searches all parts together: what the codes propose, and all rows without a code."""

    def __init__(self, interim: Interim, parts: Sequence[Part]) -> None:
        self.rows = sum(len(part.ready) for part in parts)
        self._interim = interim
        self._parts = parts
        self._numbers = np.full(len(interim.rows_of), -1)  # of the part that each coded source is
        self._late: list[tuple[int, NDArray[np.int64]]] = []  # a part's number, and its rows without a code
        named = np.zeros(interim.rows, np.bool_)
        for number, part in enumerate(parts):
            asked = np.ones(len(part.ready), np.bool_) if part.alive is None else part.alive.copy()
            if part.coded is not None:
                rows, start = interim.rows_of[part.coded], interim.starts[part.coded]
                rows = rows[: np.searchsorted(rows, len(asked))]  # of an older version, which has no others
                self._numbers[part.coded] = number
                named[start : start + len(rows)] = asked[rows]
                asked[rows] = False
            if asked.any():
                self._late.append((number, np.flatnonzero(asked)))
        self._named = None if named.all() else named  # the places asked for; None: all
        self.coded = int(np.count_nonzero(named))  # rows asked for that have a code ...
        self.late = sum(len(rows) for _, rows in self._late)  # ... and that have none

    def cost_s(self, nq: int, proposed: int) -> float:
        """An estimate of the time on one core, when so many coded rows are scored for each query."""
        dim = self._interim.dim
        scan_s = self._interim.rows * dim * SCAN_S
        return nq * (scan_s + proposed * PROPOSE_S + (proposed + self.late) * dim * SCORE_S)

    def count(self, allowed: Sequence[Mask | None] | None) -> int:
        """How many rows the parts' masks (rows,) allow, None: all of the part; without masks: all asked for."""
        if allowed is None:
            return self.coded + self.late
        return self.rows - sum(len(mask) - int(np.count_nonzero(mask)) for mask in allowed if mask is not None)

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        """Whether to score all `count` allowed rows instead."""
        proposed = self._proposed(k, params, count)
        if 2 * k >= count or 2 * proposed >= self.rows:
            return True
        exact_s = exact_cost_s(count, self.rows, self._interim.dim, nq, unit=False)
        return exact_s < (EXACT_WORTH if count < self.rows else 1.0) * self.cost_s(nq, proposed)

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Sequence[Mask | None] | None, count: int
    ) -> tuple[Found, Mask]:
        """What was found among the `count` rows that the masks allow, and for which queries (nq,) it is not enough, so
        that they must be searched exactly. Among what is found are the best, but for what codes blur."""
        ready = prepared(queries, self._interim.metric)
        proposed = self._proposed(k, params, count)
        late = list(self._late_of(allowed))
        all_named = allowed is None and self._named is None
        scores, places = self._interim.search(ready, min(k + TIES, proposed) if all_named else proposed, proposed)
        costs = self._costs(scores)
        lacking = _broken(scores)
        if not all_named:
            kept = self._kept(places, allowed)
            costs[~kept] = np.inf
            needed = min(ALLOWED_MIN * k, count - sum(len(rows) for _, rows in late))
            lacking |= np.count_nonzero(kept, axis=1) < needed
        limits = _kth(costs, k)
        chosen = np.nonzero(costs <= limits)
        sources, rows = self._interim.at(places[chosen])
        found = [Found(chosen[0], scores[chosen], self._numbers[sources], rows)]
        found += [self._scored(ready, number, rows, limits) for number, rows in late]
        return Found(*(np.concatenate(column) for column in zip(*found, strict=True))), lacking

    def _scored(self, ready: Matrix, number: int, rows: NDArray[np.int64], limits: Matrix) -> Found:
        """Those of a part's rows that cost each query (nq,) no more than its limit (nq, 1)."""
        positions = np.tile(rows, (len(ready), 1))
        scores = pair_scores(self._parts[number].ready, ready, positions, self._interim.metric)
        queries, places = np.nonzero(self._costs(scores) <= limits)
        return Found(queries, scores[queries, places], np.full(len(queries), number), rows[places])

    def _kept(self, places: NDArray[np.int64], allowed: Sequence[Mask | None] | None) -> Mask:
        """Which places are asked for and allowed; -1 is none."""
        kept: Mask = places >= 0
        if self._named is not None:
            kept &= self._named[places]
        if allowed is not None:
            sources, rows = self._interim.at(places)
            for part, mask in zip(self._parts, allowed, strict=True):
                if mask is not None and part.coded is not None:
                    mine = sources == part.coded
                    kept[mine] &= mask[rows[mine]]
        return kept

    def _late_of(self, allowed: Sequence[Mask | None] | None) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The allowed rows without a code, by part."""
        for number, rows in self._late:
            mask = None if allowed is None else allowed[number]
            yield number, rows if mask is None else rows[mask[rows]]

    def _proposed(self, k: int, params: Mapping[str, Any], count: int) -> int:
        """How many of the coded rows are scored when `count` of all rows are allowed. More care that is asked of the
        index it stands in for (ef, level) is taken here too."""
        coded = self._interim.rows
        care = integer(params, "ef", EF_DEFAULT, 1, INT_MAX) / max(EF_DEFAULT, k)
        care = max(1.0, care) * integer(params, "level", 1, 1, INT_MAX)
        wanted = (PROPOSED * k + PROPOSED_MORE) * care * max(1.0, coded / max(1, count))
        return min(math.ceil(wanted), coded)

    def _costs(self, scores: Matrix) -> Matrix:
        """The smaller, the better: a copy."""
        return -scores if larger_is_better(self._interim.metric) else scores.copy()


@lru_cache(maxsize=256)
def _breadth(factor: float) -> faiss.IndexRefineSearchParameters:
    """How many rows are scored for each one wanted. Made once: it costs some us, and FAISS only reads it."""
    return faiss.IndexRefineSearchParameters(k_factor=factor)


def _broken(scores: Matrix) -> Mask:
    """For which queries (nq,) some are beyond float32, or missing: FAISS does not order those."""
    return np.logical_not(np.isfinite(scores).all(axis=1), dtype=np.bool_)


def _kth(costs: Matrix, k: int) -> Matrix:
    """The k-th smallest cost of each query (nq, 1), the largest number there is where there are fewer."""
    if costs.shape[1] < k:
        return np.full((len(costs), 1), WORST, np.float32)
    return np.minimum(np.partition(costs, k - 1, axis=1)[:, k - 1 : k], WORST)


def _usual(rows: Matrix) -> Matrix:
    """The rows (n, dim) without those much longer than most: with codes for them the others would look all the same."""
    squares = _squares(rows)
    usual = np.median(squares[squares > 0]) if squares.any() else 0.0
    return rows[squares <= UNUSUAL * usual]


def _squares(rows: Matrix) -> NDArray[np.float64]:
    """The squared length of each (n,)."""
    squares: NDArray[np.float64] = np.square(rows, dtype=np.float64).sum(axis=1)
    return squares


def _among_prepared(metric: str) -> str:
    """The metric among rows and queries that are normalised where they must be."""
    return "IP" if metric == "COSINE" else metric
