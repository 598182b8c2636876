"""The protocol's data types by number: what they are called, which are stored."""

from __future__ import annotations

from typing import Final

from mishards.errors import Kind, MishardsError
from mishards.model import DataType

TYPE_NAMES: Final = {
    0: "None",
    1: "Bool",
    2: "Int8",
    3: "Int16",
    4: "Int32",
    5: "Int64",
    10: "Float",
    11: "Double",
    20: "String",
    21: "VarChar",
    22: "Array",
    23: "JSON",
    24: "Geometry",
    25: "Text",
    26: "Timestamptz",
    27: "Mol",
    28: "Date",
    29: "Time",
    30: "Decimal",
    100: "BinaryVector",
    101: "FloatVector",
    102: "Float16Vector",
    103: "BFloat16Vector",
    104: "SparseFloatVector",
    105: "Int8Vector",
    106: "ArrayOfVector",
    200: "ArrayOfStruct",
    201: "Struct",
}

INT_RANGES: Final = {
    DataType.INT8: (-(1 << 7), (1 << 7) - 1),
    DataType.INT16: (-(1 << 15), (1 << 15) - 1),
    DataType.INT32: (-(1 << 31), (1 << 31) - 1),
    DataType.INT64: (-(1 << 63), (1 << 63) - 1),
}
KEY_TYPES: Final = (DataType.INT64, DataType.VARCHAR)


def type_name(number: int) -> str:
    """Milvus' name of a data type."""
    return TYPE_NAMES.get(number, f"type {number}")


def stored_type(number: int, field: str) -> DataType:
    """The data type of that number. UNSUPPORTED when it is not stored."""
    try:
        return DataType(number)
    except ValueError:
        known = ", ".join(type_name(kind) for kind in DataType)
        raise MishardsError(
            Kind.UNSUPPORTED, f"data type {type_name(number)} of field {field} is not supported; supported are {known}"
        ) from None
