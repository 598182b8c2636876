"""Reading chosen rows of several sources as one Arrow batch, in a given order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.model import Field, Schema
from mishards.reader.source import Source

FILE_COLUMN = "$file"
POSITION_COLUMN = "$position"


def take_rows(
    sources: Sequence[Source],
    numbers: NDArray[np.int32],
    positions: NDArray[np.int64],
    schema: Schema,
    output: Sequence[int],
) -> pa.RecordBatch:
    """Row i is position `positions[i]` of source `numbers[i]`; one column per field id of `output`, named by it."""
    fields = [field for field_id in output if (field := schema.by_id(field_id)) is not None]
    pieces: list[list[pa.Array]] = [[] for _ in fields]
    orders = []
    for number, source in enumerate(sources):
        rows = np.flatnonzero(numbers == number)
        if len(rows) == 0:
            continue
        orders.append(rows)
        scalars = _take_scalars(source, positions[rows], fields)
        for column, field in zip(pieces, fields, strict=True):
            column.append(_take_vectors(source, field, positions[rows]) if field.is_vector else scalars[field.column])
    if not orders:
        return _empty(sources, fields)
    where = np.empty(len(numbers), np.int64)
    where[np.concatenate(orders)] = np.arange(len(numbers))
    back = pa.array(where)
    in_order = len(orders) == 1
    columns = []
    for column in pieces:
        whole = column[0] if len(column) == 1 else pa.concat_arrays(column)
        columns.append(whole if in_order else whole.take(back))
    if not fields:
        return pa.RecordBatch.from_arrays([], names=[])
    return pa.RecordBatch.from_arrays(columns, names=[field.column for field in fields])


def _take_scalars(source: Source, positions: NDArray[np.int64], fields: Sequence[Field]) -> dict[str, pa.Array]:
    names = [field.column for field in fields if not field.is_vector]
    if not names:
        return {}
    taken = source.table.select(names).take(pa.array(positions)).combine_chunks()
    return {name: _array(taken.column(name)) for name in names}


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _take_vectors(source: Source, field: Field, positions: NDArray[np.int64]) -> pa.Array:
    matrix = source.vectors(field.id)[positions]
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), field.dim)


def _empty(sources: Sequence[Source], fields: Sequence[Field]) -> pa.RecordBatch:
    """No rows, with the columns' types."""
    arrays = []
    for field in fields:
        if field.is_vector:
            arrays.append(pa.array([], pa.list_(pa.float32(), field.dim)))
        elif sources:
            arrays.append(pa.array([], sources[0].table.schema.field(field.column).type))
        else:
            arrays.append(pa.array([], pa.null()))
    return pa.RecordBatch.from_arrays(arrays, names=[field.column for field in fields])
