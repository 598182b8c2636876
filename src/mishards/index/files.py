"""Index files: written in blocks of rows with progress, mapped when loaded, scored by the segment's own vectors.

FAISS maps what it can of a file (`IO_FLAG_MMAP_IFC`): graphs, codes and inverted lists then lie in the page cache,
where all who map the file share them and from where the kernel may drop them. Packed lists of SCANN are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from mishards.index.metrics import faiss_metric, prepared
from mishards.ports import Matrix

LEARNED_MAX = np.float32(1e15)  # larger numbers are not learned from
BLOCK_ROWS = 8192  # added at once: a build can say how far it is, and be stopped, several times a second


def add_rows(index: faiss.Index, vectors: Matrix, metric: str, progress: Callable[[float], None] | None) -> None:
    """Add all rows block by block, prepared for the metric; tell the share done. What `progress` raises ends it."""
    rows = len(vectors)
    for start in range(0, rows, BLOCK_ROWS):
        index.add(prepared(vectors[start : start + BLOCK_ROWS], metric))
        if progress is not None:
            progress(min(1.0, (start + BLOCK_ROWS) / rows))


def sample(vectors: Matrix, rows_max: int, metric: str) -> Matrix:
    """At most `rows_max` rows at even distances, prepared for the metric, to learn from: a copy. FAISS ends the process
    where it cannot square a number."""
    chosen = np.linspace(0, len(vectors) - 1, min(rows_max, len(vectors))).astype(np.int64)
    return np.clip(prepared(vectors[chosen], metric), -LEARNED_MAX, LEARNED_MAX)


def write(index: faiss.Index, target: Path) -> None:
    faiss.write_index(index, str(target))


def write_graph(index: faiss.IndexHNSW, target: Path) -> None:
    """Without the vectors: `attach` gives them back."""
    faiss.write_index(index, str(target), faiss.IO_FLAG_SKIP_STORAGE)


def read(path: Path) -> faiss.Index:
    """The index, mapped as far as FAISS can."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def holds_graph(path: Path) -> bool:
    """Whether the file is a graph: FAISS begins each with four letters that name its kind."""
    with path.open("rb") as file:
        return file.read(4).startswith(b"IH")


def attach(graph: faiss.IndexHNSW, vectors: Matrix, metric: str) -> None:
    """Let a graph without vectors walk over `vectors` (rows, dim) where they lie: keep them as long as the graph."""
    storage = flat_over(vectors, metric)
    graph.storage = storage
    graph.own_fields = True  # frees the storage
    storage.this.disown()


def flat_over(vectors: Matrix, metric: str) -> faiss.IndexFlat:
    """The vectors (rows, dim), C-ordered, as an index of FAISS, where they lie: keep them as long as it."""
    flat = faiss.IndexFlat(vectors.shape[1], faiss_metric(metric))
    nobody = flat.codes.owner  # FAISS keeps the owner of a view alive; NumPy does that here
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(vectors), vectors.nbytes, nobody)
    flat.ntotal = len(vectors)
    return flat


def held_vectors(graph: faiss.IndexHNSW) -> Matrix | None:
    """The vectors (rows, dim) inside a graph, a view that lives as long as the graph; None when it holds codes."""
    storage = faiss.downcast_index(graph.storage)
    if not isinstance(storage, faiss.IndexFlat):
        return None
    flat: Matrix = faiss.rev_swig_ptr(storage.get_xb(), storage.ntotal * storage.d)
    return flat.reshape(storage.ntotal, storage.d)
