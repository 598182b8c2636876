"""How a schema lies in Arrow tables, and which shard a primary key belongs to.

The shard of a key is part of the stored format: it must never change for a key that is stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.model import DataType, Field, Schema

_ARROW_TYPES: Final = {
    DataType.BOOL: pa.bool_(),
    DataType.INT8: pa.int8(),
    DataType.INT16: pa.int16(),
    DataType.INT32: pa.int32(),
    DataType.INT64: pa.int64(),
    DataType.FLOAT: pa.float32(),
    DataType.DOUBLE: pa.float64(),
    DataType.VARCHAR: pa.string(),
    DataType.JSON: pa.binary(),
}


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type of the field's column: FixedSizeList<float32> for vectors, UTF-8 bytes for JSON."""
    if field.is_vector:
        return pa.list_(pa.float32(), field.dim)
    return _ARROW_TYPES[field.type]


def physical_schema(schema: Schema) -> pa.Schema:
    """The columns of rows as they are stored, in schema order, named by field id."""
    return pa.schema([pa.field(field.column, arrow_type(field)) for field in schema.fields])


def shard_of(keys: pa.Array, shards: int) -> NDArray[np.int32]:
    """(n,) the shard of each primary key (int64 or string), even over `shards`."""
    if shards == 1:
        return np.zeros(len(keys), np.int32)
    if pa.types.is_integer(keys.type):
        hashes = _splitmix64(keys.to_numpy().view(np.uint64))
    else:
        hashes = np.fromiter((zlib.crc32(key.encode()) for key in keys.to_pylist()), np.uint64, len(keys))
    return (hashes % np.uint64(shards)).astype(np.int32)


def _splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64 (Steele, Lea, Flood 2014): neighbouring keys spread evenly."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def no_rows(fields: Iterable[Field]) -> pa.RecordBatch:
    """No rows, with these fields' columns."""
    columns = pa.schema([pa.field(field.column, arrow_type(field)) for field in fields])
    return pa.RecordBatch.from_pylist([], schema=columns)
