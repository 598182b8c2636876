"""IVF: rows in `nlist` clusters, of which a search scans the `nprobe` nearest. Small and quick to build.

Inside the clusters IVF_FLAT keeps the rows (a second copy of the vectors, in the order of scans), IVF_SQ8 a byte for
each number, IVF_PQ a code of `nbits` for each of `m` parts of a row (Jegou, Douze and Schmid 2011), SCANN a code of 4
bits for each two numbers, compared many at a time in registers (Andre, Kermarrec and Le Scouarnec 2015). Codes rank
rows roughly: some more than k are taken, and scored by the stored vectors.

A filter widens `nprobe`: k is a larger share of the allowed rows. A query whose clusters hold fewer than
min(k, allowed) rows is searched exactly, so no search comes back short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.errors import invalid
from mishards.index import files
from mishards.index.bitmaps import Bitmap, allowed_count, selector
from mishards.index.hnsw import SCANNED_FLOATS_MAX
from mishards.index.metrics import METRICS, faiss_metric, prepared
from mishards.index.parameters import INT_MAX, check_at_least_k, flag, integer, optional_integer
from mishards.index.selectivity import EXACT_WORTH_CLUSTERS, PAIR_S, is_exact_better
from mishards.index.stored import Stored
from mishards.ports import Matrix, Progress

NLIST_MAX = 65536  # Milvus' range
NPROBE_MIN = 8  # Milvus' default; ours is a share of the clusters, and no less

# Unless the client says how many: 2 sqrt(rows) clusters, of which a share that grows with the wanted share of the rows
# is scanned. Measured on 62,666 sentence embeddings, filtered or not: recall 0.96 at k = 10 and at k = 100.
CLUSTERS_FACTOR = 2
SHARE_OF_ALL = 0.72
SHARE_POWER = 0.22

ROWS_PER_CLUSTER_MIN = 39  # fewer make poor centroids, says FAISS
ROWS_PER_CLUSTER_TRAINED = 128  # of a cluster; more cost time and gain nothing here
TRAINING_ROUNDS = 10

SCANNED_ROW_S = 2e-9  # to pass over a row that is not allowed
TRAINED_ROWS_MAX = 65_536  # or as many as the clusters take: 256 rows for each of the 256 codes of a part
TRAINED_ROWS_MIN = 16  # fewer are repeated: SCANN has always 16 codes
M_MAX = 65536
NBITS_MAX = 16


def usual_share(k: int, rows: int) -> float:
    """The share of the clusters that holds nearly all of the k nearest of `rows` rows."""
    return SHARE_OF_ALL * math.pow(min(1.0, k / max(1, rows)), SHARE_POWER)


class Ivf:
    """`ports.IndexKind` for IVF_FLAT, and what the others have in common."""

    name = "IVF_FLAT"
    metrics = METRICS
    candidates_per_hit = 1

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """nlist 1-65536, chosen for each segment when missing; a segment with few rows has fewer clusters."""
        nlist = optional_integer(params, "nlist", 1, NLIST_MAX)
        return {} if nlist is None else {"nlist": nlist}

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """nprobe 1-65536, chosen for each segment when missing; more than a segment has clusters means all."""
        nprobe = optional_integer(params, "nprobe", 1, NLIST_MAX)
        return {} if nprobe is None else {"nprobe": nprobe}

    def worthwhile(self, rows: int, dim: int) -> bool:
        return rows * dim > SCANNED_FLOATS_MAX

    def build(
        self,
        vectors: Matrix,
        metric: str,
        params: Mapping[str, Any],
        threads: int,
        target: Path,
        progress: Progress | None = None,
    ) -> None:
        rows, dim = vectors.shape
        checked = self.check_build(params, dim)
        wanted = checked.get("nlist", CLUSTERS_FACTOR * math.isqrt(rows))
        nlist = max(1, min(wanted, rows // ROWS_PER_CLUSTER_MIN))
        faiss.omp_set_num_threads(threads)
        centres = faiss.IndexFlat(dim, faiss_metric(metric))
        index = self._empty(centres, dim, nlist, rows, faiss_metric(metric), checked)
        index.cp.min_points_per_centroid = 1  # a single cluster may be smaller
        index.cp.niter = TRAINING_ROUNDS
        trained = files.sample(vectors, max(TRAINED_ROWS_MAX, nlist * ROWS_PER_CLUSTER_TRAINED), metric)
        index.train(np.resize(trained, (max(TRAINED_ROWS_MIN, len(trained)), dim)))
        files.add_rows(index, vectors, metric, progress)
        files.write(index, target)

    def load(self, path: Path, metric: str, vectors: Matrix) -> IvfIndex:
        return IvfIndex(files.read(path), path.stat().st_size, Stored(vectors, metric), self.candidates)

    def candidates(self, k: int, params: Mapping[str, Any]) -> int:
        """How many rows are scored again for k hits."""
        return self.candidates_per_hit * k

    def _empty(
        self, centres: faiss.Index, dim: int, nlist: int, rows: int, measure: int, checked: Mapping[str, Any]
    ) -> faiss.IndexIVF:
        return faiss.IndexIVFFlat(centres, dim, nlist, measure)


class IvfSq8(Ivf):
    """`ports.IndexKind` for IVF_SQ8."""

    name = "IVF_SQ8"
    candidates_per_hit = 2

    def _empty(
        self, centres: faiss.Index, dim: int, nlist: int, rows: int, measure: int, checked: Mapping[str, Any]
    ) -> faiss.IndexIVF:
        code = faiss.ScalarQuantizer.QT_8bit
        return faiss.IndexIVFScalarQuantizer(centres, dim, nlist, code, measure)


class IvfPq(Ivf):
    """`ports.IndexKind` for IVF_PQ."""

    name = "IVF_PQ"
    candidates_per_hit = 5

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """Those of IVF_FLAT; m: parts of a row, a divisor of dim; nbits 1-16: of the code of a part."""
        parts = integer(params, "m", largest_divisor(dim, max(1, dim // 4)), 1, M_MAX)
        if dim % parts:
            raise invalid(f"The dimension of a vector (dim) should be a multiple of m. Dimension:{dim}, m:{parts}")
        return super().check_build(params, dim) | {"m": parts, "nbits": integer(params, "nbits", 8, 1, NBITS_MAX)}

    def _empty(
        self, centres: faiss.Index, dim: int, nlist: int, rows: int, measure: int, checked: Mapping[str, Any]
    ) -> faiss.IndexIVF:
        trained = max(2, rows // ROWS_PER_CLUSTER_MIN)
        nbits = min(checked["nbits"], trained.bit_length() - 1)  # a code is the number of a small cluster
        index = faiss.IndexIVFPQ(centres, dim, nlist, checked["m"], nbits, measure)
        index.by_residual = False  # as for SCANN
        index.pq.cp.min_points_per_centroid = 1
        return index


class Scann(Ivf):
    """`ports.IndexKind` for SCANN."""

    name = "SCANN"

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """Those of IVF_FLAT; `with_raw_data` is checked: the stored vectors are there anyway."""
        return super().check_build(params, dim) | {"with_raw_data": flag(params, "with_raw_data", True)}

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """nprobe as for IVF_FLAT; reorder_k >= k: how many rows are scored again."""
        checked = super().check_search(params, k)
        reorder_k = optional_integer(params, "reorder_k", 1, INT_MAX)
        return checked if reorder_k is None else checked | {"reorder_k": check_at_least_k("reorder_k", reorder_k, k)}

    def candidates(self, k: int, params: Mapping[str, Any]) -> int:
        return max(k, integer(params, "reorder_k", 4 * k + 60, 1, INT_MAX))

    def _empty(
        self, centres: faiss.Index, dim: int, nlist: int, rows: int, measure: int, checked: Mapping[str, Any]
    ) -> faiss.IndexIVF:
        parts = largest_divisor(dim, dim // 2) if dim % 2 == 0 else dim
        index = faiss.IndexIVFPQFastScan(centres, dim, nlist, parts, 4, measure)
        index.by_residual = False  # one table a query instead of one a cluster: faster, as exact after scoring
        index.pq.cp.min_points_per_centroid = 1
        return index


class IvfIndex:
    """A loaded IVF index. `bytes`: of its file, which is mapped (SCANN's lists are copied)."""

    def __init__(
        self,
        index: faiss.IndexIVF,
        size: int,
        stored: Stored,
        candidates: Callable[[int, Mapping[str, Any]], int],
    ) -> None:
        self._index = index
        self._nlist = int(index.nlist)
        self._code_floats = index.code_size / 4
        self._stored = stored
        self._candidates = candidates
        self.bytes = size

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        stored = self._stored
        share = self._nprobe(k, params, count) / self._nlist
        scan_s = PAIR_S * (self._nlist * stored.dim + share * count * self._code_floats)
        passed_s = share * stored.rows * SCANNED_ROW_S
        return is_exact_better(nq * (scan_s + passed_s), count, stored, nq, k, EXACT_WORTH_CLUSTERS)

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        stored = self._stored
        ready = prepared(queries, stored.metric)
        count = allowed_count(allowed, stored.rows)
        wanted = max(k, min(stored.rows, self._candidates(k, params)))
        proposed = self._scan(ready, wanted, self._nprobe(k, params, count), allowed)
        scores, positions = stored.best(ready, proposed, k)
        places = min(k, count)
        short = positions[:, places - 1] < 0 if places else np.zeros(len(queries), bool)
        if short.any():
            scores[short], positions[short] = stored.exact(queries[short], k, allowed)
        return scores, positions

    def usual_nprobe(self, k: int) -> int:
        """The clusters to scan without a filter, unless the client says how many."""
        return max(NPROBE_MIN, math.ceil(self._nlist * usual_share(k, self._stored.rows)))

    def _nprobe(self, k: int, params: Mapping[str, Any], count: int) -> int:
        """The clusters to scan where `count` rows are allowed: the client's, or our, number times what the filter
        takes more."""
        more = usual_share(k, count) / usual_share(k, self._stored.rows)
        return min(self._nlist, math.ceil(more * integer(params, "nprobe", self.usual_nprobe(k), 1, NLIST_MAX)))

    def _scan(self, queries: Matrix, wanted: int, nprobe: int, allowed: Bitmap | None) -> NDArray[np.int64]:
        """The positions (nq, wanted) that rank best among the clusters' rows."""
        nq = len(queries)
        scores, positions = np.empty((nq, wanted), np.float32), np.empty((nq, wanted), np.int64)
        chosen = None if allowed is None else selector(allowed)
        probe = faiss.SearchParametersIVF(nprobe=nprobe, sel=chosen)
        found = (faiss.swig_ptr(scores), faiss.swig_ptr(positions), probe)
        faiss.omp_set_num_threads(1)
        self._index.search_c(nq, faiss.swig_ptr(queries), wanted, *found)
        return positions


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of `number` that is at most `at_most` (>= 1)."""
    return next(divisor for divisor in range(at_most, 0, -1) if number % divisor == 0)


IVF_FLAT = Ivf()
IVF_SQ8 = IvfSq8()
IVF_PQ = IvfPq()
SCANN = Scann()
