"""Constants: arithmetic between them, comparison, and their fit into the type of a field."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from mishards.filter.syntax import FilterError
from mishards.filter.terms import INTEGERS
from mishards.model import DataType

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
REVERSED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
ARITHMETIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo", "**": "power"}


def type_name(value: Any) -> str:
    """Milvus' name of a constant's type."""
    return {bool: "Bool", int: "Int64", float: "Double", str: "VarChar"}.get(type(value), "Array")


def shown(value: Any) -> str:
    """A constant as Milvus' messages print it: the text form of its protobuf message."""
    match value:
        case bool():
            return f"bool_val:{str(value).lower()}"
        case int():
            return f"int64_val:{value}"
        case float():
            return f"float_val:{value:g}"
        case str():
            return f'string_val:"{value}"'
        case _:
            return "array_val:{}"


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def calculate(operator_: str, left: Any, right: Any) -> int | float:
    """Two numbers combined as in C: `/` of integers drops the fraction, `%` has the sign of the left, `**` is a double.

    Never overflows: integers are unbounded, doubles become infinite. Divisors are checked before.
    """
    if operator_ == "**":
        with np.errstate(all="ignore"):
            return float(np.float_power(to_double(left), to_double(right)))
    if type(left) is int and type(right) is int:
        return _calculate_integers(operator_, left, right)
    return _calculate_doubles(operator_, to_double(left), to_double(right))


def _calculate_integers(operator_: str, left: int, right: int) -> int:
    match operator_:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    quotient = abs(left) // abs(right)
    quotient = quotient if (left < 0) == (right < 0) else -quotient
    return quotient if operator_ == "/" else left - quotient * right


def _calculate_doubles(operator_: str, left: float, right: float) -> float:
    match operator_:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right


def check_divisor(operator_: str, right: Any) -> None:
    """Refuses what cannot stand to the right of `/` and `%`."""
    if operator_ == "%" and type(right) is not int:
        raise FilterError("modulo can only apply on integer types")
    if operator_ in ("/", "%") and right == 0:
        raise FilterError("division or modulus by zero")


def to_double(value: float) -> float:
    """The nearest double; infinite beyond its range."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def to_float(value: float) -> float:
    """The nearest float32, as a double; infinite beyond its range."""
    with np.errstate(over="ignore"):
        return float(np.float32(to_double(value)))


def integer_limits(type_: DataType) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    half = 1 << INTEGERS[type_] - 1
    return -half, half - 1


def compare_integers(operator_: str, constant: float, type_: DataType) -> tuple[str, int] | bool:
    """The comparison of an integer field with any number as one with a constant of its type, or else its one result."""
    low, high = integer_limits(type_)
    if math.isnan(constant):
        return operator_ == "!="
    if math.isinf(constant):
        constant = high + 1 if constant > 0 else low - 1
    if constant != math.floor(constant):
        if operator_ in ("==", "!="):
            return operator_ == "!="
        below = operator_ in ("<", "<=")
        operator_, constant = ("<=", math.floor(constant)) if below else (">=", math.ceil(constant))
    if low <= constant <= high:
        return operator_, int(constant)
    return COMPARISONS[operator_](low, constant)  # the same for every value of the type
