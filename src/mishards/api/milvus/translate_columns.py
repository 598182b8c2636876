"""Columns between protobuf `FieldData`, the columns of a write request, and Arrow.

Numbers never become Python objects: NumPy reads a repeated field by its `__array__`, one copy; the other way a packed
field of floats is a tag, a length and the little-endian values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.api.milvus.stubs import schema_pb2
from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DYNAMIC_FIELD, DataType, Field
from mishards.schema.columns import Column
from mishards.schema.types import type_name

# the member of ScalarField that holds each type
_SCALARS: Final = {
    DataType.BOOL: "bool_data",
    DataType.INT8: "int_data",
    DataType.INT16: "int_data",
    DataType.INT32: "int_data",
    DataType.INT64: "long_data",
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.VARCHAR: "string_data",
    DataType.JSON: "json_data",
}
_DTYPES: Final = {
    "bool_data": np.dtype(np.bool_),
    "int_data": np.dtype(np.int32),
    "long_data": np.dtype(np.int64),
    "float_data": np.dtype("<f4"),
    "double_data": np.dtype("<f8"),
}
_PACKED: Final = ("float_data", "double_data")
_DATA_TAG: Final = b"\x0a"  # field 1, length-delimited


# ----------------------------------------------------------------------------------------------------------- requests


def columns_of(fields_data: Iterable[Any]) -> dict[str, Column]:
    """The columns of a write request by field name; `$meta` for the dynamic field."""
    columns: dict[str, Column] = {}
    for data in fields_data:
        name = DYNAMIC_FIELD if data.is_dynamic else data.field_name
        if name in columns:
            raise invalid(f"field {name} is given twice")
        valid = np.array(data.valid_data, np.bool_) if len(data.valid_data) else None
        columns[name] = Column(_values(name, data), valid, data.type)
    return columns


def _values(name: str, data: Any) -> NDArray[Any] | list[Any]:
    kind = data.WhichOneof("field")
    if data.type == DataType.FLOAT_VECTOR and kind == "vectors":
        return _vectors(name, data.vectors)
    member = _SCALARS.get(data.type)
    if member is None or kind not in ("scalars", None):
        raise MishardsError(Kind.UNSUPPORTED, f"data of type {type_name(data.type)} of field {name} is not supported")
    held = data.scalars.WhichOneof("data") if kind else None
    if held is None:  # no row has a value
        return []
    if held != member:
        raise invalid(f"data of field {name} is in {held}, expected {member} for type {type_name(data.type)}")
    payload = getattr(data.scalars, member)
    if member in _DTYPES:
        return np.asarray(payload.data, _DTYPES[member])
    return list(payload.data)


def _vectors(name: str, vectors: Any) -> NDArray[np.float32]:
    """(rows, dim) float32."""
    values = np.asarray(vectors.float_vector.data, np.float32)
    dim = vectors.dim
    if dim < 1 or len(values) % dim:
        raise invalid(f"{len(values)} values of vector field {name} are no whole number of vectors of dimension {dim}")
    return values.reshape(-1, dim)


# ------------------------------------------------------------------------------------------------------------ results


def fields_data_of(fields: Iterable[Field], rows: pa.RecordBatch) -> list[Any]:
    """A FieldData for each of the fields, of all rows; also of none."""
    return [_field_data(field, rows.column(field.column)) for field in fields]


def _field_data(field: Field, column: pa.Array) -> Any:
    """Scalars with nulls are full length beside `valid_data`, as clients read results."""
    data = schema_pb2.FieldData(type=field.type, field_name=field.name, field_id=field.id, is_dynamic=field.dynamic)
    if field.is_vector:
        data.vectors.dim = field.dim
        pack(data.vectors.float_vector, column.flatten().to_numpy())
        return data
    if field.nullable:
        data.valid_data.extend(column.is_valid().to_pylist())
    member = _SCALARS[field.type]
    payload = getattr(data.scalars, member)
    payload.SetInParent()
    if member in _PACKED:
        pack(payload, pc.fill_null(column, 0).to_numpy())
    elif member == "string_data":
        payload.data.extend(pc.fill_null(column, "").to_pylist())
    elif member == "json_data":
        payload.data.extend(pc.fill_null(column, b"").to_pylist())
    else:
        payload.data.extend(pc.fill_null(column, False if member == "bool_data" else 0).to_pylist())
    return data


def pack(message: Any, values: NDArray[Any]) -> None:
    """Put the values into a FloatArray or DoubleArray, of their width."""
    message.SetInParent()
    if len(values):
        message.MergeFromString(b"".join((_DATA_TAG, _varint(values.nbytes), np.ascontiguousarray(values).data)))


def ids_of(keys: NDArray[np.int64] | Sequence[int] | Sequence[str]) -> Any:
    """Primary keys as IDs; an empty array or list sets the kind too."""
    ids = schema_pb2.IDs()
    numbers = isinstance(keys, np.ndarray) or (len(keys) > 0 and isinstance(keys[0], int))
    payload = ids.int_id if numbers else ids.str_id
    payload.SetInParent()
    payload.data.extend(keys.tolist() if isinstance(keys, np.ndarray) else keys)
    return ids


def _varint(value: int) -> bytes:
    """Protobuf's base-128 encoding."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
