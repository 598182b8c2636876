"""Writing a segment's parts as local files, each with its footer.

A segment is sorted by primary key. Scalars (the key, `$meta` and `$version` among them) are one uncompressed Arrow IPC
file, so that a reader maps it and pays only for the columns it touches; each vector field is a raw C-order float32
matrix, which FAISS scans as it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.model import TS_COLUMN, VERSION_COLUMN, Field, FieldId, Schema
from mishards.segment.footer import append_footer

_GATHERED_BYTES = 8 << 20  # of vectors copied at once while they are written in key order


@dataclass(frozen=True, slots=True)
class LocalPart:
    """A finished local file that is to become a part."""

    kind: Literal["scalars", "vectors"]
    field_id: FieldId
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class SegmentFiles:
    """What `write_segment` made."""

    parts: tuple[LocalPart, ...]
    rows: int
    pk_min: int | str
    pk_max: int | str
    oldest_ts: int = 0  # hybrid, of the rows' commits; 0: that of some row is not known
    newest_ts: int = 0


def write_segment(rows: pa.Table, schema: Schema, directory: Path, collection_id: int, shard: int) -> SegmentFiles:
    """Write a segment of these rows into `directory`.

    `rows`: at least one, in any order, each primary key once; all columns of the schema, `VERSION_COLUMN`, and
    `TS_COLUMN` where timestamps are known.
    """
    keys = rows.column(schema.primary.column)
    order = np.asarray(pc.sort_indices(keys), dtype=np.int64)
    ordered = bool((order[:-1] < order[1:]).all())
    system = [name for name in (VERSION_COLUMN, TS_COLUMN) if name in rows.column_names]
    scalars = rows.select([*(field.column for field in schema.scalars), *system])
    parts = [_write_scalars(scalars if ordered else scalars.take(order), directory, collection_id, shard)]
    parts += [
        _write_vectors(rows.column(field.column), None if ordered else order, field, directory, collection_id, shard)
        for field in schema.vectors
    ]
    key_range = keys[int(order[0])].as_py(), keys[int(order[-1])].as_py()
    return SegmentFiles(tuple(parts), rows.num_rows, *key_range, *_ts_range(rows))


def _ts_range(rows: pa.Table) -> tuple[int, int]:
    if TS_COLUMN not in rows.column_names:
        return 0, 0
    bounds = pc.min_max(rows.column(TS_COLUMN))
    return bounds["min"].as_py(), bounds["max"].as_py()


def write_deletes(dead: NDArray[np.bool_], path: Path, collection_id: int, shard: int) -> int:
    """Write a segment's dead positions (rows,) as a little-endian bitmap; its size in bytes."""
    path.write_bytes(np.packbits(dead, bitorder="little").tobytes())
    append_footer(path, kind="deletes", rows=len(dead), collection_id=collection_id, shard=shard)
    return path.stat().st_size


def _write_scalars(scalars: pa.Table, directory: Path, collection_id: int, shard: int) -> LocalPart:
    path = directory / "scalars"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, scalars.schema) as writer:
        writer.write_table(scalars.combine_chunks())
    append_footer(path, kind="scalars", rows=scalars.num_rows, collection_id=collection_id, shard=shard)
    return LocalPart("scalars", FieldId(0), path, path.stat().st_size)


def _write_vectors(
    column: pa.ChunkedArray[Any],
    order: NDArray[np.int64] | None,
    field: Field,
    directory: Path,
    collection_id: int,
    shard: int,
) -> LocalPart:
    path = directory / f"vectors-{field.id}"
    chunks: list[Any] = column.chunks if order is None else [column.combine_chunks()]
    with path.open("wb") as file:
        for chunk in chunks:
            matrix = vectors_of(chunk, field.dim)
            if order is None:
                file.write(matrix.data)
                continue
            step = max(1, _GATHERED_BYTES // (4 * field.dim))
            for start in range(0, len(order), step):
                file.write(matrix[order[start : start + step]].data)
    append_footer(path, kind="vectors", rows=len(column), collection_id=collection_id, shard=shard)
    return LocalPart("vectors", field.id, path, path.stat().st_size)


def vectors_of(column: pa.FixedSizeListArray[Any, Any], dim: int) -> NDArray[np.float32]:
    """A vector column as a matrix (rows, dim) float32: a view, nothing is copied."""
    return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), dim)
