"""Syntax tree to typed tree: names become fields, constants are folded and cast to the types of the fields.

Numbers: an integer field compares exactly with any number. A FLOAT field works in float32: constants are cast to it, so
that `f == 0.1` finds what was inserted as 0.1. Arithmetic takes one field and constants; `**` is a double.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mishards.filter import syntax
from mishards.filter.constants import (
    ARITHMETIC,
    COMPARISONS,
    REVERSED,
    calculate,
    check_divisor,
    compare_integers,
    integer_limits,
    is_number,
    shown,
    to_double,
    to_float,
    type_name,
)
from mishards.filter.syntax import FilterError, Node, unsupported
from mishards.filter.terms import (
    ARROW_TYPES,
    INTEGERS,
    NUMBERS,
    Always,
    And,
    Arithmetic,
    Column,
    Compare,
    Constant,
    Contains,
    IsNull,
    JsonMember,
    Length,
    Like,
    Member,
    Not,
    Or,
    Path,
    Predicate,
    Settled,
    Term,
    Truth,
    Value,
    type_of,
)
from mishards.model import DataType, Schema

NESTING_MAX = 100
TYPE_NAMES = {
    DataType.BOOL: "Bool",
    DataType.INT8: "Int8",
    DataType.INT16: "Int16",
    DataType.INT32: "Int32",
    DataType.INT64: "Int64",
    DataType.FLOAT: "Float",
    DataType.DOUBLE: "Double",
    DataType.VARCHAR: "VarChar",
    DataType.JSON: "JSON",
    DataType.FLOAT_VECTOR: "FloatVector",
}  # Milvus' spelling, in messages


class Checker:
    """Types one filter. `columns` then names what it reads, each with the first keys of the JSON paths in it."""

    def __init__(self, schema: Schema, template: Mapping[str, Any]) -> None:
        self.columns: dict[str, set[str]] = {}
        self._schema = schema
        self._template = template
        self._depth = 0

    def check(self, node: Node, text: str) -> Predicate:
        """The whole filter as a predicate. Raises FilterError."""
        term = self._term(node)
        if predicate := _as_predicate(term):
            return predicate
        raise FilterError(f"predicate is not a boolean expression: {text}, data type: {_type_name(term)}")

    def _term(self, node: Node) -> Term:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise FilterError(f"the expression is nested deeper than {NESTING_MAX} levels")
        term = self._typed(node)
        self._depth -= 1
        return term

    def _typed(self, node: Node) -> Term:
        match node:
            case syntax.Literal(value):
                return Constant(value)
            case syntax.Items(items):
                return Constant(
                    tuple(self._constant(item, "array element type must be generic value") for item in items)
                )
            case syntax.Placeholder(name):
                return self._placeholder(name)
            case syntax.Name():
                return self._field(node)
            case syntax.Prefix("not", operand):
                return self._not(operand)
            case syntax.Prefix(sign, operand):
                return self._signed(sign, self._term(operand))
            case syntax.Operation(operator, left, right) if operator in COMPARISONS:
                return _compare(operator, self._term(left), self._term(right))
            case syntax.Operation(operator, left, right):
                return _arithmetic(operator, self._term(left), self._term(right))
            case syntax.Range():
                return self._range(node)
            case syntax.Member(operand, values):
                return _member(self._term(operand), self._term(values))
            case syntax.Like(operand, pattern):
                return self._like(operand, pattern)
            case syntax.NullTest(operand):
                return IsNull(self._field(operand))
            case syntax.Exists(operand):
                return self._exists(operand)
            case syntax.Logical(operator, operands):
                return self._logical(operator, operands)
            case syntax.Call(function, arguments):
                return self._call(function, arguments)

    def _placeholder(self, name: str) -> Constant:
        if name not in self._template:
            raise FilterError(f"the value of expression template variable name {{{name}}} is not found")
        return Constant(_template_value(name, self._template[name]))

    def _constant(self, node: Node, complaint: str) -> Any:
        term = self._term(node)
        if not isinstance(term, Constant):
            raise FilterError(complaint)
        return term.value

    def _field(self, node: syntax.Name) -> Column | Path:
        """The field of that name; a name that no field has is a key of the dynamic field."""
        field, keys = self._schema.field(node.name), node.keys
        if field is None:
            field, keys = self._schema.dynamic_field, (node.name, *keys)
        if field is None:
            raise FilterError(f"field {node.name} not exist")
        if field.is_vector:
            raise FilterError(f"field {node.name} of type {TYPE_NAMES[field.type]} cannot be used in a filter")
        first_keys = self.columns.setdefault(field.column, set())
        if field.type is DataType.JSON:
            first_keys.update(keys[:1])
            return Path(field, keys)
        if keys:
            raise FilterError(f"{TYPE_NAMES[field.type]} data type not supported accessed with []")
        return Column(field)

    def _not(self, operand: Node) -> Predicate:
        predicate = _as_predicate(self._term(operand))
        if predicate is None:
            raise FilterError("not op can only be applied on boolean expression")
        return Not(predicate)

    def _signed(self, sign: str, term: Term) -> Term:
        if isinstance(term, Constant) and not is_number(term.value):
            raise FilterError(f"'{sign}' can only be applied on integer or floating expressions")
        return _arithmetic("*", term, Constant(-1 if sign == "-" else 1))

    def _range(self, node: syntax.Range) -> Predicate:
        if node.lower[0] != node.upper[0]:
            raise FilterError(f"a range needs two operators of one direction, got {node.lower} and {node.upper}")
        low, middle, high = self._term(node.low), self._term(node.middle), self._term(node.high)
        if not isinstance(low, Constant):
            raise FilterError("lowerbound cannot be a non-const expression")
        if not isinstance(high, Constant):
            raise FilterError("upperbound cannot be a non-const expression")
        predicates = _compare(node.lower, low, middle), _compare(node.upper, middle, high)
        closed = node.lower == node.upper and "=" in node.lower
        if _compare(node.lower if closed else node.lower[0], low, high) == Always(False):
            raise FilterError("invalid range: lowerbound is greater than upperbound")
        return And(predicates)

    def _like(self, operand: Node, pattern: Node) -> Predicate:
        term = self._term(operand)
        if not isinstance(term, Column | Path) or type_of(term) not in (DataType.VARCHAR, DataType.JSON):
            raise FilterError("like operation on non-string or no-json field is unsupported")
        text = self._constant(pattern, "the pattern of like must be a string")
        if not isinstance(text, str):
            raise FilterError("the pattern of like must be a string")
        if (len(text) - len(text.rstrip("\\"))) % 2:
            raise FilterError(f"the pattern of like ends with an escape: {text}")
        return Like(term, text)

    def _exists(self, operand: Node) -> Predicate:
        term = self._term(operand)
        if not isinstance(term, Path):
            raise FilterError(f"exists operations are only supportted on json field, got:{_type_name(term)}")
        if not term.keys:
            raise FilterError("exists operations are only supportted on json key")
        return Not(IsNull(term))

    def _logical(self, operator: str, operands: tuple[Node, ...]) -> Predicate:
        predicates = tuple(_as_predicate(self._term(operand)) for operand in operands)
        if None in predicates:
            raise FilterError(f"'{operator}' can only be used between boolean expressions")
        known = tuple(predicate for predicate in predicates if predicate is not None)
        return And(known) if operator == "and" else Or(known)

    def _call(self, function: str, arguments: tuple[Node, ...]) -> Term:
        if function != "array_length" and function not in _CONTAINS:
            raise unsupported(f"function {function}")
        operation = _CONTAINS.get(function, "array_length")
        expected = 1 if operation == "array_length" else 2
        if len(arguments) != expected:
            raise FilterError(f"{function} takes {expected} arguments, got {len(arguments)}")
        path = self._term(arguments[0])
        if not isinstance(path, Path):
            raise FilterError(
                f"{operation} operation are only supported on json or array fields now, got: {_type_name(path)}"
            )
        if operation == "array_length":
            return Length(path)
        value = self._constant(arguments[1], f"{operation} operation are only supported explicitly specified element")
        if operation == "contains":
            return Contains(path, (value,), every=True)
        if not isinstance(value, tuple):
            raise FilterError(f"{operation} operation element must be an array")
        return Contains(path, value, every=operation == "contains_all")


_CONTAINS = {
    f"{prefix}_{operation}": operation
    for prefix in ("json", "array")
    for operation in ("contains", "contains_all", "contains_any")
}


def _as_predicate(term: Term) -> Predicate | None:
    """The term as a predicate, or None if it is not one. A JSON value is not: a misspelt field would pass for it."""
    match term:
        case Constant(value):
            return Always(value) if isinstance(value, bool) else None
        case Column(field):
            return Truth(term) if field.type is DataType.BOOL else None
        case Path() | Length() | Arithmetic():
            return None
        case _:
            return term


def _type_name(term: Term) -> str:
    match term:
        case Constant(value):
            return type_name(value)
        case Column() | Path() | Length() | Arithmetic():
            return TYPE_NAMES[type_of(term)]
        case _:
            return "Bool"


def _template_value(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_template_value(name, item) for item in value)
    if type(value) not in (bool, int, float, str):
        raise FilterError(f"template variable {name} is a {type(value).__name__}, not a bool, number, string or list")
    return value


def _compare(operator: str, left: Term, right: Term) -> Predicate:
    if not _comparable(left, right):
        raise FilterError(
            f"comparisons between {_type_name(left)}, element_type: None and {_type_name(right)} elementType: None"
            " are not supported"
        )
    match left, right:
        case Constant(first), Constant(second):
            return Always(COMPARISONS[operator](first, second))
        case Constant(), _:
            return _compare(REVERSED[operator], right, left)
        case ((Column() | Path() | Length() | Arithmetic()), Constant(value)):
            return _compare_constant(operator, left, value)
        case ((Column() | Path() | Length() | Arithmetic()), (Column() | Path() | Length() | Arithmetic())):
            if DataType.JSON in (type_of(left), type_of(right)):
                raise FilterError("two column comparison with JSON type is not supported")
            return Compare(operator, left, right)
    raise FilterError("only comparison between two fields is supported")


def _compare_constant(operator: str, value: Value, constant: Any) -> Predicate:
    type_ = type_of(value)
    if type_ in INTEGERS:
        outcome = compare_integers(operator, constant, type_)
        if isinstance(outcome, bool):
            return Settled(value, outcome)
        operator, constant = outcome
    return Compare(operator, value, Constant(_cast(constant, type_)))


def _comparable(left: Term, right: Term) -> bool:
    kinds = {_kind(left), _kind(right)}
    return "Array" not in kinds and ("JSON" in kinds or len(kinds) == 1)


def _kind(term: Term) -> str:
    """Types of one kind compare with each other."""
    name = _type_name(term)
    return "number" if name.startswith(("Int", "Float", "Double")) else name


def _cast(constant: Any, type_: DataType) -> Any:
    if type_ is DataType.FLOAT:
        return to_float(constant)
    return to_double(constant) if type_ is DataType.DOUBLE else constant


def _arithmetic(operator: str, left: Term, right: Term) -> Constant | Arithmetic:
    name = ARITHMETIC[operator]
    if not (_is_numeric(left) and _is_numeric(right)):
        raise FilterError(f"'{name}' can only be used between integer or floating expressions")
    if isinstance(right, Constant):
        check_divisor(operator, right.value)
    match left, right:
        case Constant(first), Constant(second):
            return Constant(calculate(operator, first, second))
        case ((Column() | Path() | Length() | Arithmetic()), Constant(constant)):
            if operator in ("/", "%") and constant == -1:  # the lowest integer divided by -1 has no value in 64 bits
                operator, constant = ("*", -1) if operator == "/" else ("%", 1)
            type_ = _arithmetic_type(operator, type_of(left), constant)
            return Arithmetic(operator, left, Constant(_operand(constant, type_)), type_)
        case Constant(constant), (Column() | Path() | Length() | Arithmetic()):
            if operator not in "+-*":
                raise FilterError(f"'{name}' is only supported with a constant on the right")
            type_ = _arithmetic_type(operator, type_of(right), constant)
            return Arithmetic(operator, Constant(_operand(constant, type_)), right, type_)
    raise FilterError("not supported to do arithmetic operations between multiple fields")


def _is_numeric(term: Term) -> bool:
    if isinstance(term, Constant):
        return is_number(term.value)
    return isinstance(term, Column | Path | Length | Arithmetic) and (
        type_of(term) in NUMBERS or type_of(term) is DataType.JSON
    )


def _arithmetic_type(operator: str, type_: DataType, constant: float) -> DataType:
    if operator == "%" and type_ in (DataType.FLOAT, DataType.DOUBLE):
        raise FilterError("modulo can only apply on integer types")
    if type_ is DataType.JSON:
        return DataType.JSON
    if operator == "**":
        return DataType.DOUBLE
    if type_ in INTEGERS:
        return DataType.INT64 if isinstance(constant, int) else DataType.DOUBLE
    return type_


def _operand(constant: float, type_: DataType) -> Any:
    if type_ is DataType.INT64:
        low, high = integer_limits(type_)
        if not low <= constant <= high:
            raise FilterError(f"integer constant {constant} does not fit into 64 bits")
    return _cast(constant, type_)


def _member(operand: Term, values: Term) -> Predicate:
    if isinstance(operand, Constant):
        raise FilterError("'term' can only be used on non-const expression")
    if not isinstance(operand, Column | Path | Length | Arithmetic):
        raise FilterError("'term' can only be used on single field")
    if not isinstance(values, Constant):
        raise FilterError("value in list cannot be a non-const expression")
    if not isinstance(values.value, tuple):
        raise FilterError(f"the right-hand side of 'in' must be a list, but got: {shown(values.value)}")
    type_ = type_of(operand)
    allowed = _ALLOWED[type_]
    if not set(map(type, values.value)) <= allowed:
        alien = next(value for value in values.value if type(value) not in allowed)
        raise FilterError(f"value '{shown(alien)}' in list cannot be casted to {TYPE_NAMES[type_]}")
    if type_ is DataType.JSON:
        return JsonMember(operand, values.value)
    return Member(operand, _arrow_values(values.value, type_))


_ALLOWED: dict[DataType, set[type]] = {
    DataType.BOOL: {bool},
    **{type_: {int} for type_ in INTEGERS},
    DataType.FLOAT: {int, float},
    DataType.DOUBLE: {int, float},
    DataType.VARCHAR: {str},
    DataType.JSON: {bool, int, float, str},
}


def _arrow_values(values: tuple[Any, ...], type_: DataType) -> pa.Array[Any]:
    """The constants as an array of the field's type, those that no value of the type equals left out."""
    if type_ in INTEGERS:
        low, high = integer_limits(type_)
        values = tuple(value for value in values if low <= value <= high)
    elif type_ in (DataType.FLOAT, DataType.DOUBLE):
        values = tuple(number for value in values if not math.isnan(number := _cast(value, type_)))
        values = (*values, 0.0, -0.0) if 0.0 in values else values  # equal, but two values to a hash table
    return pa.array(values, ARROW_TYPES[type_])
