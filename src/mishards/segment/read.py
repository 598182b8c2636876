"""Opening a segment's parts from verified local copies: mapped, never read as a whole.

The files must not change or be truncated while they are mapped; a reader's cache owns its copies (P1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.model import Field
from mishards.segment.footer import read_footer


def open_scalars(path: Path) -> pa.Table:
    """The scalars part, memory-mapped: sorted by primary key, one chunk a column, buffers in the page cache."""
    body_bytes = read_footer(path).body_bytes
    with pa.memory_map(str(path)) as mapped:
        body = mapped.read_buffer(body_bytes)
    return pa.ipc.open_file(pa.BufferReader(body)).read_all()


def open_vectors(path: Path, rows: int, dim: int) -> NDArray[np.float32]:
    """A vectors part (rows, dim) float32, memory-mapped, read-only."""
    return np.memmap(path, dtype="<f4", mode="r", shape=(rows, dim))


def read_deletes(path: Path, rows: int) -> NDArray[np.bool_]:
    """Which positions (rows,) of the segment are dead, of a deletes part. Copied."""
    bits = np.fromfile(path, dtype=np.uint8, count=(rows + 7) // 8)
    return np.unpackbits(bits, count=rows, bitorder="little").astype(bool)


def open_rows(scalars: Path, vectors: Sequence[tuple[Field, Path]]) -> pa.Table:
    """A whole segment as a table, scalars and vectors, for rewriting it. Mapped, not copied."""
    table = open_scalars(scalars)
    for field, path in vectors:
        matrix = open_vectors(path, table.num_rows, field.dim)
        values = pa.Array.from_buffers(pa.float32(), matrix.size, [None, pa.py_buffer(matrix.data)])
        table = table.append_column(field.column, pa.FixedSizeListArray.from_arrays(values, field.dim))
    return table
