"""Hits as columns, and the one pure merge that readers (over files) and proxies (over parts) share.

Order: query, then score in the metric's direction, then primary key ascending. That order is total because a live
primary key occurs once, so the answer does not depend on how rows are spread over files and nodes (I5, I13).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.wire.messages import SearchHits

LARGER_IS_BETTER = frozenset({"IP", "COSINE"})


class Hits(msgspec.Struct, frozen=True):
    """n hits of any queries, in any order until `best` sorts them. All arrays have n entries."""

    queries: NDArray[np.int32]  # which query each hit answers
    scores: NDArray[np.float32]  # public metric form
    keys: NDArray[Any]  # primary keys: int64, or Python strings (dtype object)
    files: NDArray[np.int64]
    positions: NDArray[np.int64]  # in the file
    sources: NDArray[np.int32]  # reader: number of the source; proxy: number of the part
    rows: NDArray[np.int64]  # reader: position in the source; proxy: row in the part

    def take(self, order: NDArray[np.int64]) -> Hits:
        return Hits(
            self.queries[order],
            self.scores[order],
            self.keys[order],
            self.files[order],
            self.positions[order],
            self.sources[order],
            self.rows[order],
        )

    def part(self, start: int, stop: int) -> Hits:
        """The hits start..stop-1: views."""
        return Hits(
            self.queries[start:stop],
            self.scores[start:stop],
            self.keys[start:stop],
            self.files[start:stop],
            self.positions[start:stop],
            self.sources[start:stop],
            self.rows[start:stop],
        )

    def __len__(self) -> int:
        return len(self.scores)


def gather(parts: Sequence[Hits], text_keys: bool) -> Hits:
    """All hits of several parts."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.zeros(0, np.int64)
        keys = np.zeros(0, np.object_) if text_keys else none
        small = np.zeros(0, np.int32)
        return Hits(small, np.zeros(0, np.float32), keys, none, none, small, none)
    return Hits(
        np.concatenate([part.queries for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.files for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def best(hits: Hits, nq: int, metric: str, limit: int, offset: int = 0) -> tuple[Hits, NDArray[np.int32]]:
    """The hits offset..offset+limit-1 of each query in order, and how many each query has: (hits, counts (nq,))."""
    worth = -hits.scores if metric in LARGER_IS_BETTER else hits.scores
    if nq == 1:
        order = np.lexsort((_ranks(hits.keys), worth))[offset : offset + limit]
        return hits.take(order), np.array([len(order)], np.int32)
    order = np.lexsort((_ranks(hits.keys), worth, hits.queries))
    queries = hits.queries[order]
    first = np.searchsorted(queries, np.arange(nq, dtype=np.int32))
    rank = np.arange(len(order)) - first[queries]
    order = order[(rank >= offset) & (rank < offset + limit)]
    counts = np.bincount(hits.queries[order], minlength=nq).astype(np.int32)
    return hits.take(order), counts


def first_hits(hits: Hits, counts: NDArray[np.int32], limit: int, offset: int = 0) -> tuple[Hits, NDArray[np.int32]]:
    """What `best` makes of hits that are sorted already, `counts` (nq,) of each query."""
    if offset == 0 and (len(hits) <= limit or counts.max(initial=0) <= limit):
        return hits, counts
    rank = np.arange(len(hits)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.flatnonzero((rank >= offset) & (rank < offset + limit))
    return hits.take(kept), np.clip(counts - offset, 0, limit).astype(np.int32)


def pack(
    hits: Hits, counts: NDArray[np.int32], rows: memoryview, text_keys: bool, covered: int, in_flight: int
) -> SearchHits:
    """A reader's sorted hits as a message."""
    nothing = memoryview(b"")
    return SearchHits(
        counts=buffer_of(counts),
        scores=buffer_of(hits.scores),
        int_keys=nothing if text_keys else buffer_of(hits.keys),
        text_keys=hits.keys.tolist() if text_keys else [],
        files=buffer_of(hits.files),
        positions=buffer_of(hits.positions),
        rows=rows,
        covered=covered,
        in_flight=in_flight,
    )


def unpack(message: SearchHits, source: int, text_keys: bool) -> Hits:
    """A reader's answer as hits of part `source`."""
    counts = np.frombuffer(message.counts, np.int32)
    scores = np.frombuffer(message.scores, np.float32)
    zeros = np.zeros(len(scores), np.int32)
    return Hits(
        queries=zeros if len(counts) == 1 else np.arange(len(counts), dtype=np.int32).repeat(counts),
        scores=scores,
        keys=_objects(message.text_keys) if text_keys else np.frombuffer(message.int_keys, np.int64),
        files=np.frombuffer(message.files, np.int64),
        positions=np.frombuffer(message.positions, np.int64),
        sources=zeros + np.int32(source) if source else zeros,
        rows=np.arange(len(scores), dtype=np.int64),
    )


def key_array(keys: pa.Array) -> NDArray[Any]:
    """Primary keys of an Arrow column as `Hits.keys`."""
    if pa.types.is_integer(keys.type):
        numbers: NDArray[np.int64] = keys.to_numpy(zero_copy_only=False)
        return numbers
    return _objects(keys.to_pylist())


def _objects(texts: list[str]) -> NDArray[np.object_]:
    """Not NumPy's own strings: they drop trailing NULs and take four bytes a character of the longest."""
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array


def _ranks(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers that sort as the keys do."""
    return keys if keys.dtype == np.int64 else np.unique(keys, return_inverse=True)[1]


def buffer_of(array: NDArray[Any]) -> memoryview:
    """The array's bytes, for a message."""
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
