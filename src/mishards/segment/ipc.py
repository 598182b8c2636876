"""Rows as one Arrow IPC stream of one batch: how they travel between roles and lie in fresh objects."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import pyarrow as pa

_ALIGNMENT = 8  # of the buffers inside a stream; NumPy and FAISS read them in place
_END_BYTES = 8  # the mark at the end of a stream


def to_stream(rows: pa.RecordBatch | pa.Table, spare_bytes: int = 0) -> memoryview:
    """The rows as an Arrow stream that holds one batch, with so many unused bytes at the end.

    The size is known beforehand, so that the memory is taken, and touched, once: from NumPy, since Arrow's allocator
    gives freed memory back and then pays for fresh pages, ten times as long as writing them takes.
    """
    batch = single_batch(rows) if isinstance(rows, pa.Table) else rows
    stream_bytes = batch.schema.serialize().size + pa.ipc.get_record_batch_size(batch) + _END_BYTES
    buffer = np.empty(stream_bytes + spare_bytes, np.uint8)
    with pa.FixedSizeBufferWriter(pa.py_buffer(buffer)) as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return buffer.data


def from_stream(data: bytes | memoryview) -> pa.RecordBatch:
    """The rows of such a stream: views into `data` (kept alive), which is copied first if it lies misaligned."""
    buffer = pa.py_buffer(data)
    if buffer.address % _ALIGNMENT:
        buffer = pa.py_buffer(bytes(data))
    with pa.ipc.open_stream(buffer) as reader:
        return reader.read_next_batch()


def single_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one batch, copied only where a column has several chunks."""
    if table.num_rows == 0:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    return table.combine_chunks().to_batches()[0]


class _NoPandas(MetaPathFinder):
    """Makes `import pandas` fail."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("no pandas here", name=fullname)


def keep_pandas_out() -> None:
    """Arrow imports pandas, where it is installed, with the first NumPy array it is given: half a second and 35 MiB
    that only pymilvus needs. It looks once (each way), and then there is none."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array(np.zeros(1)).to_numpy()
    finally:
        sys.meta_path.remove(finder)
