"""HNSW: a navigable graph over the rows (Malkov and Yashunin 2016), the index for speed; HNSW_SQ: over compressed rows.

A walk keeps the `ef` best rows it has met. Under a filter `ef` is widened (`selectivity.widened`), and what is
not allowed is dropped after the walk: when enough remain, they are what the walk would have found among allowed rows
alone. When not (a filter that hides what is near, a cut-off part of the graph) the walk is repeated wider, and
then replaced by exact search. So a search returns min(k, allowed) rows always, and no filter makes it blind.

HNSW for L2 and IP walks over the segment's own vectors, and its file is the graph alone; for COSINE the file holds the
normalised vectors. HNSW_SQ's holds codes of 6 to 16 bits a number. What a walk finds is scored by the stored vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mishards.errors import invalid
from mishards.index import files
from mishards.index.bitmaps import Bitmap, allowed_count, only_allowed
from mishards.index.metrics import METRICS, faiss_metric, prepared
from mishards.index.parameters import INT_MAX, check_at_least_k, flag, integer, number_from, one_of
from mishards.index.selectivity import is_exact_better, widened
from mishards.index.stored import Stored
from mishards.ports import Matrix, Progress

# Milvus' own for AUTOINDEX.
M_DEFAULT = 18
EF_CONSTRUCTION_DEFAULT = 240
EF_DEFAULT = 64

# Below it one core scans all vectors in about the time of a walk (under 0.1 ms).
SCANNED_FLOATS_MAX = 1 << 19

# One step of a walk's breadth, on one core, in cold caches: 128 dimensions 1.9 us, 384 2.5 us.
STEP_S = 1.6e-6
STEP_FLOAT_S = 2.4e-9

FEW_DEAD = 0.9  # with that many rows allowed (some are deleted), a few more than wanted are enough
SPARE = 8
FURTHER = 8  # times the breadth, for queries around which too few rows are allowed

TRAINED_ROWS_MAX = 65_536  # for the range of each dimension of codes
SQ_TYPES = {"SQ6": "QT_6bit", "SQ8": "QT_8bit", "BF16": "QT_bf16", "FP16": "QT_fp16"}  # the coarsest first
REFINE_TYPES = (*SQ_TYPES, "FP32")
REFINE_K_MAX = 1e6


class Hnsw:
    """`ports.IndexKind` for HNSW."""

    name = "HNSW"
    metrics = METRICS

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """M 2-2048: links of a row (twice as many on the lowest level); efConstruction: breadth of a walk on insert."""
        return {
            "M": integer(params, "M", M_DEFAULT, 2, 2048),
            "efConstruction": integer(params, "efConstruction", EF_CONSTRUCTION_DEFAULT, 1, INT_MAX),
        }

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """ef >= k."""
        return {"ef": check_at_least_k("ef", integer(params, "ef", max(EF_DEFAULT, k), 1, INT_MAX), k)}

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
        checked = self.check_build(params, vectors.shape[1])
        graph = faiss.IndexHNSWFlat(vectors.shape[1], checked["M"], faiss_metric(metric))
        grow(graph, vectors, metric, checked["efConstruction"], threads, progress)
        if metric == "COSINE":
            files.write(graph, target)
        else:
            files.write_graph(graph, target)

    def load(self, path: Path, metric: str, vectors: Matrix) -> HnswIndex:
        return open_graph(path, metric, vectors)


class HnswSq(Hnsw):
    """`ports.IndexKind` for HNSW_SQ: walks over compressed rows, two to five times smaller, a little faster."""

    name = "HNSW_SQ"

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """Those of HNSW and sq_type. `refine` and `refine_type` are checked; hits are scored by the stored vectors."""
        sq_type = one_of(params, "sq_type", "SQ8", tuple(SQ_TYPES))
        refine_type = one_of(params, "refine_type", "FP32", REFINE_TYPES)
        if REFINE_TYPES.index(refine_type) <= REFINE_TYPES.index(sq_type):
            raise invalid(f"refine_type ({refine_type}) should be more precise than sq_type ({sq_type})")
        return super().check_build(params, dim) | {
            "sq_type": sq_type,
            "refine": flag(params, "refine", False),
            "refine_type": refine_type,
        }

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """ef >= k; refine_k >= 1: how many rows are scored again for each hit."""
        return super().check_search(params, k) | {"refine_k": number_from(params, "refine_k", 1, 1, REFINE_K_MAX)}

    def load(self, path: Path, metric: str, vectors: Matrix) -> HnswIndex:
        return open_graph(path, metric, vectors, refines=True)

    def build(
        self,
        vectors: Matrix,
        metric: str,
        params: Mapping[str, Any],
        threads: int,
        target: Path,
        progress: Progress | None = None,
    ) -> None:
        dim = vectors.shape[1]
        checked = self.check_build(params, dim)
        build_coded(
            vectors, metric, checked["sq_type"], checked["M"], checked["efConstruction"], threads, target, progress
        )


def build_coded(
    vectors: Matrix,
    metric: str,
    sq_type: str,
    links: int,
    ef_construction: int,
    threads: int,
    target: Path,
    progress: Progress | None,
) -> None:
    """A graph over codes of `sq_type`, which its file holds."""
    code = getattr(faiss.ScalarQuantizer, SQ_TYPES[sq_type])
    graph = faiss.IndexHNSWSQ(vectors.shape[1], code, links, faiss_metric(metric))
    graph.train(files.sample(vectors, TRAINED_ROWS_MAX, metric))
    grow(graph, vectors, metric, ef_construction, threads, progress)
    files.write(graph, target)


def grow(
    graph: faiss.IndexHNSW,
    vectors: Matrix,
    metric: str,
    ef_construction: int,
    threads: int,
    progress: Progress | None,
) -> None:
    """Add all rows to an empty graph."""
    faiss.omp_set_num_threads(threads)
    graph.hnsw.efConstruction = ef_construction
    files.add_rows(graph, vectors, metric, progress)


def open_graph(path: Path, metric: str, vectors: Matrix, refines: bool = False) -> HnswIndex:
    """The graph over the segment's vectors, those of its file, or codes of its file; `refines`: knows refine_k."""
    graph = files.read(path)
    held = None if graph.storage is None else files.held_vectors(graph)
    return HnswIndex(graph, path.stat().st_size, Stored(vectors, metric, held), refines)


class HnswIndex:
    """A loaded graph. `bytes`: of its file, which is mapped."""

    def __init__(self, graph: faiss.IndexHNSW, size: int, stored: Stored, refines: bool) -> None:
        self._graph = graph
        self._refines = refines
        if graph.storage is None:
            files.attach(graph, stored.vectors, stored.metric)
        self._stored = stored  # what the graph may walk over
        self.bytes = size

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        stored = self._stored
        steps = min(stored.rows, widened(_ef(params, k), k, count, stored.rows))
        step_s = STEP_S + STEP_FLOAT_S * stored.dim
        return is_exact_better(nq * steps * step_s, count, stored, nq, k)

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: Bitmap | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        stored = self._stored
        ready = prepared(queries, stored.metric)
        count = allowed_count(allowed, stored.rows)
        wanted = k
        if self._refines:
            wanted = min(max(k, stored.rows), math.ceil(k * number_from(params, "refine_k", 1, 1, REFINE_K_MAX)))
        breadth = max(wanted, _ef(params, k))
        if allowed is None:
            proposed = self._walk(ready, wanted, breadth)
            lacking = proposed[:, min(k, stored.rows) - 1] < 0
        else:
            proposed, lacking = self._walk_past(ready, wanted, breadth, allowed, count)
        scores, positions = stored.best(ready, proposed, k)
        if lacking.any():
            scores[lacking], positions[lacking] = stored.exact(queries[lacking], k, allowed)
        return scores, positions

    def _walk_past(
        self, queries: Matrix, wanted: int, breadth: int, allowed: Bitmap, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The allowed rows among those met, and for which queries (nq,) they are fewer than wanted."""
        rows, needed = self._stored.rows, min(wanted, count)
        ef = widened(breadth, wanted, count, rows)
        met = max(wanted, min(rows, wanted + SPARE if count >= FEW_DEAD * rows else ef))
        proposed, lacking = self._met(queries, met, min(rows, ef), needed, allowed)
        if lacking.any():  # the rows around these queries are not allowed: look further
            further = max(met, min(rows, FURTHER * ef))
            again, still = self._met(queries[lacking], further, further, needed, allowed)
            padding = ((0, 0), (0, again.shape[1] - proposed.shape[1]))
            proposed = np.pad(proposed, padding, constant_values=-1)
            proposed[lacking] = again
            lacking[lacking] = still
        return proposed, lacking

    def _met(
        self, queries: Matrix, met: int, ef: int, needed: int, allowed: Bitmap
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        proposed = only_allowed(self._walk(queries, met, max(ef, met)), allowed)
        return proposed, np.count_nonzero(proposed >= 0, axis=1) < needed

    def _walk(self, queries: Matrix, wanted: int, ef: int) -> NDArray[np.int64]:
        """The positions (nq, wanted) met. FAISS' own method: its wrapper costs 2 us more."""
        nq = len(queries)
        scores, positions = np.empty((nq, wanted), np.float32), np.empty((nq, wanted), np.int64)
        found = (faiss.swig_ptr(scores), faiss.swig_ptr(positions), _breadth(ef))
        faiss.omp_set_num_threads(1)
        self._graph.search_c(nq, faiss.swig_ptr(queries), wanted, *found)
        return positions


@lru_cache(maxsize=256)
def _breadth(ef: int) -> faiss.SearchParametersHNSW:
    """Made once: it costs 6 us, and FAISS only reads it."""
    return faiss.SearchParametersHNSW(efSearch=ef)


def _ef(params: Mapping[str, Any], k: int) -> int:
    return max(k, integer(params, "ef", EF_DEFAULT, 1, INT_MAX))


HNSW = Hnsw()
HNSW_SQ = HnswSq()
