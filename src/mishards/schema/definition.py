"""From what a client declares to a `model.Schema`: every rule of fields, checked once, in Milvus' words.

What is not stored today (other vector types, arrays, partition keys, ...) is refused by name, never dropped silently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DYNAMIC_FIELD, FIRST_FIELD_ID, DataType, Field, FieldId, Schema
from mishards.schema.limits import DIM_MAX, FIELDS_MAX, SHARDS_MAX, VARCHAR_BYTES_MAX, VECTOR_FIELDS_MAX
from mishards.schema.names import check_field_name
from mishards.schema.types import INT_RANGES, KEY_TYPES, stored_type, type_name

# What a default may be sent as, by the type of its field. Small integers travel as Int32.
_WHOLE: Final = (DataType.INT32, DataType.INT64)  # clients send a Python int as INT64, whatever the field
_REAL: Final = (DataType.FLOAT, DataType.DOUBLE)
_DEFAULT_TYPES: Final = {
    DataType.BOOL: (DataType.BOOL,),
    DataType.INT8: _WHOLE,
    DataType.INT16: _WHOLE,
    DataType.INT32: _WHOLE,
    DataType.INT64: _WHOLE,
    DataType.FLOAT: _REAL,
    DataType.DOUBLE: _REAL,
    DataType.VARCHAR: (DataType.VARCHAR,),
}
_TEXT_SEARCH_PARAMS: Final = ("enable_analyzer", "enable_match", "analyzer_params", "multi_analyzer_params")


class FieldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A field as a client declares it. `type` is the protocol's number; `default_type` that of the value it sent."""

    name: str
    type: int
    description: str = ""
    primary_key: bool = False
    auto_id: bool = False
    nullable: bool = False
    partition_key: bool = False
    clustering_key: bool = False
    dynamic: bool = False
    params: Mapping[str, str] = {}
    default: Any = None
    default_type: int = 0


def define_schema(specs: Sequence[FieldSpec], *, description: str = "", dynamic: bool = False) -> Schema:
    """The schema with field ids from 100 on, the hidden `$meta` last when `dynamic`.

    Errors: PARAMETER_INVALID for a broken rule, UNSUPPORTED for what Milvus has and Mishards has not.
    """
    if len(specs) > FIELDS_MAX:
        raise invalid(f"maximum field's number should be limited to {FIELDS_MAX}, but got {len(specs)}")
    fields = [_field(FieldId(FIRST_FIELD_ID + number), spec) for number, spec in enumerate(specs)]
    _check_together(fields)
    if dynamic:
        last = FieldId(FIRST_FIELD_ID + len(fields))
        fields.append(Field(id=last, name=DYNAMIC_FIELD, type=DataType.JSON, dynamic=True))
    return Schema(fields=tuple(fields), description=description, dynamic=dynamic)


def check_shards(shards: int) -> int:
    """The number of shards asked for, 1 when none is."""
    if not 0 <= shards <= SHARDS_MAX:
        raise invalid(f"maximum shards's number should be limited to {SHARDS_MAX}, but got {shards}")
    return shards or 1


def _check_together(fields: Sequence[Field]) -> None:
    names = [field.name for field in fields]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise invalid(f"duplicated field name {repeated} found")
    keys = [field.name for field in fields if field.primary_key]
    if not keys:
        raise invalid("primary key is not specified")
    if len(keys) > 1:
        raise invalid(f"there are more than one primary key, field name = {keys[0]}, {keys[1]}")
    vectors = sum(field.is_vector for field in fields)
    if not vectors:
        raise invalid("schema does not contain vector field: invalid parameter")
    if vectors > VECTOR_FIELDS_MAX:
        raise invalid(f"maximum vector field's number should be limited to {VECTOR_FIELDS_MAX}, but got {vectors}")


def _field(id: FieldId, spec: FieldSpec) -> Field:
    check_field_name(spec.name)
    _check_supported(spec)
    type = stored_type(spec.type, spec.name)
    if spec.primary_key:
        _check_primary_key(spec, type)
    elif spec.auto_id:
        raise invalid(f"only the primary key can be auto_id, field {spec.name} is not")
    if type is DataType.FLOAT_VECTOR and spec.nullable:
        raise MishardsError(Kind.UNSUPPORTED, f"nullable vector is not supported, field {spec.name}")
    max_length = _max_length(spec) if type is DataType.VARCHAR else 0
    return Field(
        id=id,
        name=spec.name,
        type=type,
        description=spec.description,
        primary_key=spec.primary_key,
        auto_id=spec.auto_id,
        nullable=spec.nullable,
        default=_default(spec, type, max_length),
        dim=_dim(spec) if type is DataType.FLOAT_VECTOR else 0,
        max_length=max_length,
        type_params=dict(spec.params),
    )


def _check_supported(spec: FieldSpec) -> None:
    if spec.dynamic:
        raise invalid(f"cannot explicitly set a field as a dynamic field: {spec.name}")
    if spec.partition_key:
        raise MishardsError(Kind.UNSUPPORTED, f"partition key is not supported, field {spec.name}")
    if spec.clustering_key:
        raise MishardsError(Kind.UNSUPPORTED, f"clustering key is not supported, field {spec.name}")
    for param in _TEXT_SEARCH_PARAMS:
        if spec.params.get(param, "false").lower() != "false":
            raise MishardsError(Kind.UNSUPPORTED, f"full-text search ({param}) is not supported, field {spec.name}")


def _check_primary_key(spec: FieldSpec, type: DataType) -> None:
    if type not in KEY_TYPES:
        raise invalid(
            f"the data type of primary key should be Int64 or VarChar, field {spec.name} is {type_name(type)}"
        )
    if spec.nullable:
        raise invalid(f"primary field not support null, field {spec.name}")
    if spec.default is not None:
        raise invalid(f"primary field not support default_value, field {spec.name}")


def _dim(spec: FieldSpec) -> int:
    if "dim" not in spec.params:
        raise invalid(
            f"dimension is not defined in field type params, check type param `dim` for vector field {spec.name}"
        )
    dim = _whole_number(spec, "dim")
    if not 1 <= dim <= DIM_MAX:
        raise invalid(f"invalid dimension: {dim} of field {spec.name}. should be in range 1 ~ {DIM_MAX}")
    return dim


def _max_length(spec: FieldSpec) -> int:
    if "max_length" not in spec.params:
        raise invalid(f"type param(max_length) should be specified for the field({spec.name})")
    max_length = _whole_number(spec, "max_length")
    if not 1 <= max_length <= VARCHAR_BYTES_MAX:
        raise invalid(
            f"the maximum length specified for the field({spec.name}) should be in (0, {VARCHAR_BYTES_MAX}], "
            f"but got {max_length} instead: invalid parameter"
        )
    return max_length


def _whole_number(spec: FieldSpec, param: str) -> int:
    text = spec.params[param]
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise invalid(f"type param {param} of field {spec.name} should be a whole number, got {text!r}")
    return int(text)


def _default(spec: FieldSpec, type: DataType, max_length: int) -> Any:
    """The default value, checked against its field; None without one."""
    if spec.default is None:
        return None
    wanted = _DEFAULT_TYPES.get(type)
    if wanted is None:
        raise invalid(f"type not support default_value, type:{type_name(type)}, name:{spec.name}")
    if spec.default_type not in wanted:
        raise invalid(
            f"type ({type_name(type)}) of field ({spec.name}) is not equal to "
            f"the type(DataType_{type_name(spec.default_type)}) of default_value"
        )
    value = spec.default
    if type in INT_RANGES:
        low, high = INT_RANGES[type]
        if not low <= value <= high:
            raise invalid(f"default_value {value} of field {spec.name} is out of range: [{low}, {high}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise invalid(f"default_value {value} of field {spec.name} is not a number or infinity")
    elif isinstance(value, str) and len(value.encode()) > max_length:
        raise invalid(
            f"the length ({len(value.encode())}) of default_value of field {spec.name} exceeds max length {max_length}"
        )
    return value
