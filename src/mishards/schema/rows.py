"""From a write request's columns to rows as they are stored: every value checked, defaults and nulls filled in.

Works on whole columns (NumPy, Arrow); only JSON values are looked at one by one. CPU-bound: large requests belong in a
thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.errors import invalid
from mishards.model import DYNAMIC_FIELD, DataType, Field, Schema
from mishards.schema.columns import Column
from mishards.schema.keys import arrow_type, physical_schema
from mishards.schema.limits import JSON_BYTES_MAX
from mishards.schema.types import INT_RANGES, type_name

_SMALL_INTS = (DataType.INT8, DataType.INT16, DataType.INT32)
_EMPTY_OBJECT = b"{}"


def encode_rows(
    schema: Schema, columns: Mapping[str, Column], rows: int, generated_keys: NDArray[np.int64] | None
) -> pa.RecordBatch:
    """The rows as `physical_schema(schema)` has them. PARAMETER_INVALID names the field, the row and the limit.

    `generated_keys` (rows,): the primary keys of an auto_id collection, which the columns then must not hold; VARCHAR
    keys become decimal strings.
    """
    if rows < 1:
        raise invalid("num_rows should be greater than 0, got 0: the rows to write are empty")
    key = schema.primary
    for name in columns:
        if schema.field(name) is None:
            raise invalid(f"field {name} does not exist in the schema of the collection")
        if name == key.name and generated_keys is not None:
            raise invalid(f"the primary key {name} is auto_id, remove it from the rows")
    arrays = []
    for field in schema.fields:
        if field.primary_key and generated_keys is not None:
            arrays.append(pa.array(generated_keys).cast(arrow_type(field)))
        else:
            arrays.append(_encode(schema, field, columns.get(field.name), rows))
    return pa.RecordBatch.from_arrays(arrays, schema=physical_schema(schema))


def encode_keys(schema: Schema, columns: Mapping[str, Column], rows: int) -> pa.Array:
    """The primary keys alone, checked: those that an upsert into an auto_id collection replaces."""
    return _encode(schema, schema.primary, columns.get(schema.primary.name), rows)


def check_vectors(field: Field, vectors: NDArray[np.float32]) -> None:
    """Refuse vectors (n, dim) of another dimension than the field's, or with a value that is not finite."""
    check_dimension(field, vectors)
    finite = np.isfinite(vectors)
    if not finite.all():
        row, place = np.argwhere(~finite)[0]
        raise invalid(
            f"value '{vectors[row, place]}' is not a number or infinity, field {field.name}, row number: {row}"
        )


def check_dimension(field: Field, vectors: Any) -> None:
    """Refuse vectors (n, dim) of another dimension than the field's."""
    dim = np.shape(vectors)[1]
    if dim != field.dim:
        raise invalid(f"vector dimension {dim} does not match field '{field.name}' ({field.dim})")


def _encode(schema: Schema, field: Field, column: Column | None, rows: int) -> pa.Array:
    """The field's column of all rows."""
    if column is None:
        return _absent(field, rows)
    if column.type and column.type != field.type:
        raise invalid(
            f"the type of field {field.name} does not match: expected {type_name(field.type)}, "
            f"got {type_name(column.type)}"
        )
    if field.is_vector:
        check_dimension(field, column.values)
    valid = _valid(field, column, rows)
    expected = rows if valid is None else int(valid.sum())
    if len(column.values) != expected:
        raise invalid(
            f"the number of rows ({len(column.values)}) of field {field.name} does not match the request's ({expected})"
        )
    places = np.arange(rows) if valid is None else np.flatnonzero(valid)
    if field.is_vector:
        return _vectors(field, column.values)
    values = _scalars(schema, field, column.values, places)
    if valid is None:
        return values
    return pc.replace_with_mask(_filler(field, rows), pa.array(valid), values)


def _absent(field: Field, rows: int) -> pa.Array:
    if field.dynamic:
        return pa.repeat(pa.scalar(_EMPTY_OBJECT, pa.binary()), rows)
    if field.default is None and not field.nullable:
        raise invalid(f"fieldSchema({field.name}) has no corresponding fieldData pass in: invalid parameter")
    return _filler(field, rows)


def _filler(field: Field, rows: int) -> pa.Array:
    """What stands where no value was given: the default, else null."""
    if field.default is not None:
        return pa.repeat(pa.scalar(field.default, arrow_type(field)), rows)
    return pa.nulls(rows, arrow_type(field))


def _valid(field: Field, column: Column, rows: int) -> NDArray[np.bool_] | None:
    """Which rows have a value, or None when all have."""
    valid = column.valid
    if valid is None:
        return None
    if len(valid) != rows:
        raise invalid(f"the length of valid_data ({len(valid)}) of field {field.name} does not match num_rows ({rows})")
    if valid.all():
        return None
    if field.is_vector or (not field.nullable and field.default is None):
        raise invalid(f"field {field.name} is not nullable, but row number {int(np.argmin(valid))} is null")
    return valid


def _vectors(field: Field, values: Any) -> pa.Array:
    matrix = np.ascontiguousarray(values, np.float32)
    check_vectors(field, matrix)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), field.dim)


def _scalars(schema: Schema, field: Field, values: Any, places: NDArray[np.int64]) -> pa.Array:
    """The values given, checked and converted; `places` are their row numbers."""
    if field.type in _SMALL_INTS:
        _check_range(field, np.asarray(values, np.int64), places)
    elif field.type is DataType.JSON:
        _check_json(schema, field, values, places)
    elif field.type in (DataType.FLOAT, DataType.DOUBLE):
        _check_finite(field, np.asarray(values), places)
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(arrow_type(field))
    array = pa.array(values, arrow_type(field))
    if field.type is DataType.VARCHAR:
        _check_length(field, array, places)
    return array


def _check_range(field: Field, values: NDArray[np.int64], places: NDArray[np.int64]) -> None:
    low, high = INT_RANGES[field.type]
    wrong = (values < low) | (values > high)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise invalid(
            f"the value ({values[at]}) of field {field.name} is out of range: [{low}, {high}], row number: {places[at]}"
        )


def _check_finite(field: Field, values: NDArray[Any], places: NDArray[np.int64]) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise invalid(f"value '{values[at]}' is not a number or infinity, field {field.name}, row number: {places[at]}")


def _check_length(field: Field, values: pa.Array, places: NDArray[np.int64]) -> None:
    lengths = pc.binary_length(values).to_numpy()
    if lengths.max(initial=0) > field.max_length:
        at = int(np.argmax(lengths > field.max_length))
        raise invalid(
            f"length of varchar field {field.name} exceeds max length, row number: {places[at]}, "
            f"length: {lengths[at]}, max length: {field.max_length}"
        )


def _check_json(schema: Schema, field: Field, values: Any, places: NDArray[np.int64]) -> None:
    static = {other.name for other in schema.fields} if field.dynamic else set()
    for place, value in zip(places, values, strict=True):
        if value == _EMPTY_OBJECT:
            continue
        if len(value) > JSON_BYTES_MAX:
            raise invalid(
                f"length of json field {field.name} exceeds max length, row number: {place}, "
                f"length: {len(value)}, max length: {JSON_BYTES_MAX}"
            )
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise invalid(f"invalid JSON in field {field.name}, row number: {place}: {error}") from None
        if field.dynamic:
            _check_dynamic(decoded, static, int(place))


def _check_dynamic(decoded: Any, static: set[str], place: int) -> None:
    if not isinstance(decoded, dict):
        raise invalid(f"the dynamic field {DYNAMIC_FIELD} should be a JSON object, row number: {place}")
    for name in decoded:
        if name in static:
            raise invalid(f"dynamic field cannot include the static field: {name}, row number: {place}")
