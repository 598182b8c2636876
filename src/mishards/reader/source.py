"""A source: some rows of one collection, frozen for one request at one version, as evaluation sees them.

Segments and blocks of the tail look alike here. Made on the loop (cheap), evaluated on any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.index.exact import bitmap
from mishards.ports import Matrix, VectorIndex
from mishards.reader.interims import Interims
from mishards.wire.hits import key_array

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Source:
    """Rows 0..rows-1. Nothing here may be written to. What is derived from the rows is kept: a source serves all
    searches until the next commit."""

    rows: int
    planned: int  # rows of the files it stands for, dead ones included (I14)
    alive: Mask | None  # asked for and alive at the version; None: all
    place_of: Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]  # -> file ids, positions there
    keys: pa.Array | pa.ChunkedArray  # primary keys
    table: pa.Table  # the scalar fields
    vectors: Callable[[int], Matrix]  # field id -> (rows, dim)
    unit_vectors: Callable[[int], Matrix]  # the same, each row of length one
    index: Callable[[int], VectorIndex | None]  # id of the index definition -> the index, if there is one
    ordered: bool  # positions are in primary key order
    find: Callable[[pa.Array], NDArray[np.int64]]  # primary keys -> positions that may hold them
    masks: MaskCache
    interims: Interims

    def prepared(self, field_id: int, metric: str) -> Matrix:
        """The vectors as exact search by the metric wants them."""
        return (self.unit_vectors if metric == "COSINE" else self.vectors)(field_id)

    @cached_property
    def alive_count(self) -> int:
        return self.rows if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def alive_bits(self) -> NDArray[np.uint8] | None:
        return None if self.alive is None else bitmap(self.alive)

    def key_values_at(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The primary keys at `positions`, as hits carry them."""
        return key_array(self.keys_at(positions)) if self._numbers is None else self._numbers[positions]

    @cached_property
    def _numbers(self) -> NDArray[np.int64] | None:
        return self.keys.to_numpy() if pa.types.is_integer(self.keys.type) else None

    def keys_at(self, positions: NDArray[np.int64]) -> pa.Array:
        """The primary keys at `positions`."""
        taken = self.keys.take(pa.array(positions))
        return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


class MaskCache:
    """Filter results over the immutable rows of one segment or block, newest kept (P18). One bool a row."""

    def __init__(self, kept_max: int = 16) -> None:
        self._kept_max = kept_max
        self.bytes = 0
        self._masks: dict[object, Mask] = {}
        self._lock = threading.Lock()  # searches run on several threads

    def get(self, key: object, rows: int, compute: Callable[[int], Mask]) -> Mask:
        """The mask of `rows` rows; `compute(start)` gives what is missing from `start` on (a block grows)."""
        with self._lock:
            known = self._masks.pop(key, None)
        start = 0 if known is None else len(known)
        if start < rows:
            more = compute(start)
            known = more if known is None else np.concatenate([known, more])
        assert known is not None
        with self._lock:
            self._masks[key] = known
            while len(self._masks) > self._kept_max:
                self._masks.pop(next(iter(self._masks)))
            self.bytes = sum(mask.nbytes for mask in self._masks.values())
        return known[:rows]
