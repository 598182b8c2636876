"""A typed filter over an Arrow table: one vectorised pass for each predicate, joined by Kleene's logic.

The result of a predicate is a bool array with a row for each of the table's, in which null is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.filter import documents
from mishards.filter.documents import Documents
from mishards.filter.terms import (
    ARROW_TYPES,
    INTEGERS,
    Always,
    And,
    Arithmetic,
    Column,
    Compare,
    Constant,
    Contains,
    IsNull,
    JsonMember,
    Like,
    Member,
    Not,
    Or,
    Path,
    Predicate,
    Settled,
    Truth,
    Value,
    type_of,
)
from mishards.model import DataType

Array: TypeAlias = Any  # pa.Array or pa.ChunkedArray, as the table's columns are
Ternary: TypeAlias = Any  # such an array of bool, null where unknown

_COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_CALCULATE = {"+": pc.add, "-": pc.subtract, "*": pc.multiply, "/": pc.divide, "**": pc.power}


def evaluate(
    predicate: Predicate, table: pa.Table | pa.RecordBatch, first_keys: Mapping[str, Set[str]]
) -> NDArray[np.bool_]:
    """(rows,) bool: true where the predicate is true, false where it is false or unknown."""
    result = _Evaluation(table, first_keys).predicate(predicate)
    if result.null_count:
        result = pc.fill_null(result, False)
    mask: NDArray[np.bool_] = result.to_numpy(zero_copy_only=False)
    return mask


class _Evaluation:
    def __init__(self, table: pa.Table | pa.RecordBatch, first_keys: Mapping[str, Set[str]]) -> None:
        self._table = table
        self._documents = Documents(table, first_keys)

    def predicate(self, predicate: Predicate) -> Ternary:
        match predicate:
            case And(operands):
                return reduce(pc.and_kleene, map(self.predicate, operands))
            case Or(operands):
                return reduce(pc.or_kleene, map(self.predicate, operands))
            case Not(operand):
                return pc.invert(self.predicate(operand))
            case Always(value):
                return pa.repeat(pa.scalar(value), self._table.num_rows)
            case Settled(operand, value):
                return _where_valid(self._value(operand), pa.scalar(value))
            case Truth(operand):
                return self._value(operand)
            case Compare(operator, left, right):
                return self._compare(operator, left, right)
            case Member(operand, values):
                array = self._value(operand)
                return _where_valid(array, pc.is_in(array, values))
            case JsonMember(operand, constants):
                return documents.member(self._documents.values(operand), constants)
            case Like(operand, pattern):
                if type_of(operand) is DataType.JSON:
                    return documents.like(self._documents.values(operand), pattern)
                return pc.match_like(self._value(operand), pattern)
            case Contains(operand, items, every):
                return documents.contains(self._documents.values(operand), items, every)
            case IsNull(Path(_, keys) as path) if keys:
                return documents.is_null(self._documents.values(path))
            case IsNull(operand):
                return pc.is_null(self._table[operand.field.column])

    def _compare(self, operator: str, left: Value, right: Value | Constant) -> Ternary:
        if isinstance(right, Constant):
            if type_of(left) is DataType.JSON:
                return documents.compare(operator, self._documents.values(left), right.value)
            array = self._value(left)
            return _COMPARE[operator](array, pa.scalar(right.value, array.type))
        first, second = self._value(left), self._value(right)
        if first.type != second.type:
            common = pa.int64() if {type_of(left), type_of(right)} <= INTEGERS.keys() else pa.float64()
            first, second = first.cast(common, safe=False), second.cast(common, safe=False)
        return _COMPARE[operator](first, second)

    def _value(self, value: Value) -> Array:
        """A value that is not JSON, in the Arrow type of its type."""
        match value:
            case Column(field):
                return self._table[field.column]
            case Arithmetic(operator, left, right, type_):
                return _calculate(operator, self._operand(left, type_), self._operand(right, type_))
        raise TypeError(f"{value} is read from JSON")

    def _operand(self, value: Value | Constant, type_: DataType) -> Array:
        if isinstance(value, Constant):
            return pa.scalar(value.value, ARROW_TYPES[type_])
        return self._value(value).cast(ARROW_TYPES[type_], safe=False)


def _calculate(operator: str, left: Array, right: Array) -> Array:
    if operator == "%":  # of integers, with the sign of the left, as in C
        return pc.subtract(left, pc.multiply(pc.divide(left, right), right))
    return _CALCULATE[operator](left, right)


def _where_valid(array: Array, result: Ternary) -> Ternary:
    """The result, unknown where the array is null."""
    if isinstance(result, pa.Scalar) or array.null_count:
        return pc.if_else(pc.is_valid(array), result, None)
    return result
