"""Which positions a search may return, as FAISS reads it: little-endian bitmaps over the rows of a segment."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.uint8]


def bitmap(mask: NDArray[np.bool_]) -> Bitmap:
    """The mask (rows,) with eight rows to a byte, the first in the lowest bit; padded with zeros."""
    return np.packbits(mask, bitorder="little")


def allowed_count(allowed: Bitmap | None, rows: int) -> int:
    """How many of `rows` rows a bitmap allows; None allows all."""
    return rows if allowed is None else int(np.bitwise_count(allowed).sum(dtype=np.int64))


def positions_in(allowed: Bitmap, rows: int) -> NDArray[np.int64]:
    """The positions that a bitmap over `rows` rows allows, ascending."""
    return np.flatnonzero(np.unpackbits(allowed, count=rows, bitorder="little"))


def only_allowed(positions: NDArray[np.int64], allowed: Bitmap) -> NDArray[np.int64]:
    """The positions, -1 in place of those that the bitmap does not allow."""
    return np.where(allowed[positions >> 3] >> (positions & 7).astype(np.uint8) & 1, positions, -1)


def selector(allowed: Bitmap) -> faiss.IDSelector:
    """FAISS' view of a bitmap, which it keeps alive."""
    return faiss.IDSelectorBitmap(np.ascontiguousarray(allowed))
