"""A filter typed against a schema: the tree that `check` makes and `evaluate` runs.

A value has one result per row or null; a predicate is true, false or unknown (Kleene's three-valued logic), and unknown
wherever a value it reads is null, but for the null test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from mishards.model import DataType, Field


@dataclass(frozen=True, slots=True)
class Constant:
    """A bool, int, float, str or tuple of such."""

    value: Any


@dataclass(frozen=True, slots=True)
class Column:
    """A scalar field that is not JSON."""

    field: Field


@dataclass(frozen=True, slots=True)
class Path:
    """What lies under a path of a JSON field; null when missing. Without keys: the document itself."""

    field: Field
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Length:
    """The number of items of a JSON array; null for anything else."""

    operand: Path


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A value combined with a constant, in the arithmetic of `type`: INT64 (wraps around), FLOAT, DOUBLE or JSON.

    JSON computes with Python's numbers, row by row, and is null for what is not a number.
    """

    operator: str
    left: Value | Constant
    right: Value | Constant
    type: DataType


Value: TypeAlias = Column | Path | Length | Arithmetic


@dataclass(frozen=True, slots=True)
class Always:
    """The same result for every row."""

    value: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """The same result for every row in which the operand is not null."""

    operand: Value
    value: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """A BOOL field as a predicate."""

    operand: Column


@dataclass(frozen=True, slots=True)
class Compare:
    """A value with a constant of its type (of any type when it is JSON), or two values that are not JSON."""

    operator: str
    left: Value
    right: Value | Constant


@dataclass(frozen=True, slots=True)
class Member:
    """A value in a set of constants of its Arrow type."""

    operand: Value
    values: pa.Array[Any]


@dataclass(frozen=True, slots=True)
class JsonMember:
    """A JSON value in a set of bools, numbers and strings, equal to one of the same kind."""

    operand: Value
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A string matches a pattern of `%`, `_` and `\\` escapes."""

    operand: Value
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """A JSON array holds all, or any, of the items."""

    operand: Path
    items: tuple[Any, ...]
    every: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    operand: Column | Path


@dataclass(frozen=True, slots=True)
class Not:
    operand: Predicate


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Predicate, ...]


Predicate: TypeAlias = (
    Always | Settled | Truth | Compare | Member | JsonMember | Like | Contains | IsNull | Not | And | Or
)
Term: TypeAlias = Constant | Value | Predicate

INTEGERS = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}  # and their bits
NUMBERS = frozenset((*INTEGERS, DataType.FLOAT, DataType.DOUBLE))
ARROW_TYPES: dict[DataType, pa.DataType] = {
    DataType.BOOL: pa.bool_(),
    DataType.INT8: pa.int8(),
    DataType.INT16: pa.int16(),
    DataType.INT32: pa.int32(),
    DataType.INT64: pa.int64(),
    DataType.FLOAT: pa.float32(),
    DataType.DOUBLE: pa.float64(),
    DataType.VARCHAR: pa.utf8(),
}


def type_of(value: Value) -> DataType:
    """The type of a value; that of anything read from a JSON field is JSON."""
    match value:
        case Column(field):
            return field.type
        case Arithmetic():
            return value.type
        case Path() | Length():
            return DataType.JSON
