"""JSON columns, row by row: what lies under a path, and predicates on it.

A value of another kind than the constant it meets (bool, number, string) is unknown, as a missing one is. Integers and
doubles are one kind, and compare exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mishards.filter.constants import COMPARISONS, calculate
from mishards.filter.terms import Arithmetic, Constant, Length, Path, Value

ROWS_PER_DECODE = 8192  # at most 64 KiB each: half a GiB of JSON text at worst
NUMBER = frozenset((int, float))

Row: TypeAlias = Any  # what one row's JSON decodes to
Ternary: TypeAlias = Any  # a bool array, null where unknown


class Documents:
    """The JSON columns of one table, each decoded at most once and only as far as the paths need."""

    def __init__(self, table: pa.Table | pa.RecordBatch, first_keys: Mapping[str, Set[str]]) -> None:
        self._table = table
        self._first_keys = first_keys
        self._rows: dict[str, list[Row]] = {}

    def values(self, value: Value) -> list[Any]:
        """The value of each row, None for null and missing."""
        match value:
            case Path():
                return self._path(value)
            case Length(path):
                return [len(items) if type(items) is list else None for items in self._path(path)]
            case Arithmetic(operator, Constant(left), right):
                return [calculate_row(operator, left, item) for item in self.values(right)]  # type: ignore[arg-type]
            case Arithmetic(operator, left, Constant(right)):
                return [calculate_row(operator, item, right) for item in self.values(left)]  # type: ignore[arg-type]
        raise TypeError(f"{value} is not read from JSON")

    def _path(self, path: Path) -> list[Any]:
        column = path.field.column
        first_keys = frozenset(self._first_keys[column])
        if column not in self._rows:
            self._rows[column] = _decode(self._table[column], first_keys)
        values = self._rows[column]
        if not path.keys:
            return values
        first, *rest = path.keys
        row_type, names = _row_type(first_keys)
        name = names[first]
        values = [getattr(row, name) if type(row) is row_type else _step(row, first) for row in values]
        for key in rest:
            values = [_step(value, key) for value in values]
        return values


def _step(value: Any, key: str) -> Any:
    """What lies under one key, or at one position, of a decoded value; None if nothing does."""
    if type(value) is dict:
        return value.get(key)
    if type(value) is list and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    return None


def _decode(column: Any, first_keys: frozenset[str]) -> list[Row]:
    """Each row's JSON; an object becomes a struct of the first keys alone, which skips the rest of its text."""
    row_type, _ = _row_type(first_keys)
    decoder = msgspec.json.Decoder(list[row_type | list[Any] | str | int | float | bool | None])  # type: ignore[valid-type]
    chunks: list[Any] = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows: list[Row] = []
    for chunk in chunks:
        for start in range(0, len(chunk), ROWS_PER_DECODE):
            block: Any = pc.fill_null(chunk.slice(start, ROWS_PER_DECODE), b"null")
            joined: Any = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(block)], pa.int32()), block), b",")
            rows += decoder.decode(b"[" + joined[0].as_py() + b"]")
    return rows


@lru_cache(maxsize=256)
def _row_type(first_keys: frozenset[str]) -> tuple[type, dict[str, str]]:
    """A struct with an attribute for each key, and the attributes' names by key. A missing key is None, as null is."""
    names = {key: f"key_{number}" for number, key in enumerate(sorted(first_keys))}
    row_type = msgspec.defstruct(
        "Row",
        [(name, Any, None) for name in names.values()],
        rename={name: key for key, name in names.items()},
        gc=False,
    )
    return row_type, names


def calculate_row(operator: str, left: Any, right: Any) -> float | None:
    """Arithmetic on what a row holds: None unless both are numbers, and integers for `%`."""
    kinds = {type(left), type(right)}
    if not kinds <= NUMBER or (operator == "%" and float in kinds):
        return None
    return calculate(operator, left, right)


def compare(operator: str, values: list[Any], constant: Any) -> Ternary:
    """Each value compared with the constant; unknown when of another kind."""
    holds, kind = COMPARISONS[operator], _kind(constant)
    return _ternary([holds(value, constant) if type(value) in kind else None for value in values])


def member(values: list[Any], constants: tuple[Any, ...]) -> Ternary:
    """Each value equal to any of the constants; if to none, unknown when one of them is of another kind."""
    kinds = {_kind(constant) for constant in constants}
    same_kind = {kind: frozenset(constant for constant in constants if type(constant) in kind) for kind in kinds}
    by_type = {type_: same_kind[kind] for kind in kinds for type_ in kind}
    otherwise = {type_: False if kinds <= {_kind_of(type_)} else None for type_ in (bool, int, float, str)}

    def holds(value: Any) -> bool | None:
        return True if value in by_type.get(type(value), ()) else otherwise.get(type(value))

    return _ternary([holds(value) if type(value) in otherwise else None for value in values])


def like(values: list[Any], pattern: str) -> Ternary:
    """Each string matched as a whole; unknown for what is not a string."""
    matches: Callable[[str], Any] = re.compile(_regular_expression(pattern), re.DOTALL).fullmatch
    return _ternary([matches(value) is not None if type(value) is str else None for value in values])


def contains(values: list[Any], items: tuple[Any, ...], every: bool) -> Ternary:
    """Each array holds all, or any, of the items; unknown for what is not an array."""
    wanted = frozenset(_comparable(item) for item in items)

    def holds(value: list[Any]) -> bool:
        present = frozenset(_comparable(item) for item in value)
        return wanted <= present if every else not wanted.isdisjoint(present)

    return _ternary([holds(value) if type(value) is list else None for value in values])


def is_null(values: list[Any]) -> Ternary:
    return pa.array([value is None for value in values], pa.bool_())


def _ternary(results: list[bool | None]) -> Ternary:
    return pa.array(results, pa.bool_())


def _kind(constant: Any) -> frozenset[type]:
    return _kind_of(type(constant))


def _kind_of(type_: type) -> frozenset[type]:
    """The types whose values compare with those of this one."""
    return NUMBER if type_ in NUMBER else frozenset((type_,))


def _comparable(item: Any) -> Any:
    """A hashable stand-in that equals another item's exactly when kind and value do; an object equals nothing."""
    if type(item) in (list, tuple):
        return tuple(_comparable(part) for part in item)
    if type(item) is dict:
        return object()
    return (bool, item) if type(item) is bool else item


def _regular_expression(pattern: str) -> str:
    """A pattern of `like`: `%` is any text, `_` any character, `\\` takes the next character literally."""
    wildcards = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(wildcards.get(part) or re.escape(part[-1]) for part in parts)
