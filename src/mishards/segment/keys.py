"""Positions of primary keys in a file's key column, which is sorted and unique, and how rows are brought to that."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Measured: a bisection in a million strings costs 5 us, hashing them for pc.index_in 0.05-0.1 us each.
_BISECTIONS_PER_HASHED = 1 / 64


class KeyIndex:
    """Finds primary keys by position. Keeps the column, copies nothing.

    `column`: (rows,) int64 or utf8 without nulls, strictly ascending (strings by their UTF-8 bytes, as Arrow sorts).
    """

    def __init__(self, column: pa.Array[Any]) -> None:
        self._column = column
        self._numbers: NDArray[np.int64] | None = column.to_numpy() if pa.types.is_int64(column.type) else None
        self.min: Any = column[0].as_py() if len(column) else None
        self.max: Any = column[-1].as_py() if len(column) else None

    def __len__(self) -> int:
        return len(self._column)

    def may_hold(self, low: Any, high: Any) -> bool:
        """Whether a key from `low` to `high` may be here; None for both: no key at all."""
        if self.min is None or low is None:
            return False
        return bool(low <= self.max and high >= self.min)

    def find(self, keys: pa.Array[Any]) -> NDArray[np.int64]:
        """The position of each key, -1 where it is missing."""
        if len(self) == 0 or len(keys) == 0:
            return np.full(len(keys), -1, np.int64)
        if self._numbers is not None:
            return _find_numbers(self._numbers, keys.to_numpy())
        if len(keys) <= len(self) * _BISECTIONS_PER_HASHED:
            return self._bisect(keys)
        found = pc.index_in(keys, value_set=self._column).fill_null(-1)
        return np.asarray(found, dtype=np.int64)

    def _bisect(self, keys: pa.Array[Any]) -> NDArray[np.int64]:
        """Python compares strings by code point, which is the order of their UTF-8 bytes."""
        column, rows = self._column, range(len(self))
        positions = np.full(len(keys), -1, np.int64)
        for i, key in enumerate(keys.to_pylist()):
            if self.min <= key <= self.max:
                at = bisect_left(rows, key, key=lambda row: column[row].as_py())
                if column[at].as_py() == key:
                    positions[i] = at
        return positions


def ascending(keys: pa.Array[Any]) -> bool:
    """Whether keys (int64 or utf8, without nulls) are sorted and unique, as a `KeyIndex` wants them."""
    if len(keys) < 2:
        return True
    if pa.types.is_int64(keys.type):
        numbers = keys.to_numpy()
        return bool((numbers[:-1] < numbers[1:]).all())
    return bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())


def last_of_each_key(keys: pa.Array[Any]) -> NDArray[np.int64]:
    """Positions of the last row of each key, in the order of the keys."""
    if ascending(keys):
        return np.arange(len(keys))
    order = pc.sort_indices(keys)  # stable: rows of one key stay in their order
    ranked = keys.take(order)
    last = np.ones(len(keys), bool)
    last[:-1] = np.asarray(pc.not_equal(ranked[:-1], ranked[1:]))
    return np.asarray(order, dtype=np.int64)[last]


def _find_numbers(column: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    at = column.searchsorted(keys)
    at[at == len(column)] = 0
    return np.where(column[at] == keys, at, -1)
