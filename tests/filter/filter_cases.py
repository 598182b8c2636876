"""Random filters with their meaning: each text comes with a Python function from a row to True, False or None.

The functions are written from the language's rules, apart from the code under test. None is unknown.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from mishards.model import DataType, Field, FieldId, Schema

Row = dict[str, Any]
BITS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}
ARROW = {
    "i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64(), "f": pa.float32(), "d": pa.float64(),
    "s": pa.utf8(), "b": pa.bool_(), "j": pa.binary(), "$meta": pa.binary(),
}  # fmt: skip
TYPES = {
    "i8": DataType.INT8, "i16": DataType.INT16, "i32": DataType.INT32, "i64": DataType.INT64, "f": DataType.FLOAT,
    "d": DataType.DOUBLE, "s": DataType.VARCHAR, "b": DataType.BOOL, "j": DataType.JSON, "$meta": DataType.JSON,
}  # fmt: skip
SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="pk", type=DataType.INT64, primary_key=True),
        *(
            Field(id=FieldId(101 + n), name=name, type=type_, nullable=True, dynamic=name == "$meta")
            for n, (name, type_) in enumerate(TYPES.items())
        ),
        Field(id=FieldId(200), name="vector", type=DataType.FLOAT_VECTOR, dim=4),
    ),
    dynamic=True,
)


@dataclass(frozen=True)
class Case:
    """A predicate, or a value with its kind: int, f (float32), d (double) or json."""

    text: str
    of: Callable[[Row], Any]
    kind: str = ""


def table(rows: list[Row], chunks: int) -> pa.Table | pa.RecordBatch:
    """The rows as Arrow: a batch, or a table of so many chunks."""
    columns = {str(SCHEMA.field(name).id): [_stored(name, row[name]) for row in rows] for name in TYPES}  # type: ignore[union-attr]
    arrays = {key: pa.array(values, ARROW[name]) for (key, values), name in zip(columns.items(), TYPES, strict=True)}
    batch = pa.RecordBatch.from_pydict({"100": pa.array(range(len(rows)), pa.int64()), **arrays})
    if not chunks:
        return batch
    step = -(-len(rows) // chunks) or 1
    return pa.Table.from_batches([batch.slice(i, step) for i in range(0, len(rows), step)], batch.schema)


def _stored(name: str, value: Any) -> Any:
    return json.dumps(value).encode() if TYPES[name] is DataType.JSON and value is not None else value


# rows

strings = st.text("ab%_\\'\n é", max_size=4)
floats = st.sampled_from([0.0, -0.0, 0.1, 0.5, -1.5, 3.0, 1e30, -(2.0**63), 2.0**53]) | st.floats(
    width=32, allow_nan=True
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2**53 + 1]), strings)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from("ab"), scalars, max_size=2)
objects = st.dictionaries(st.sampled_from(["a", "b", "x y"]), values, max_size=3)


def integers(bits: int) -> st.SearchStrategy[int]:
    half = 1 << bits - 1
    return st.integers(-4, 4) | st.sampled_from([-half, half - 1]) | st.integers(-half, half - 1)


rows = st.lists(
    st.fixed_dictionaries(
        {
            **{name: st.none() | integers(bits) for name, bits in BITS.items()},
            "f": st.none() | floats.map(lambda value: float(_float32(value))),
            "d": st.none() | floats,
            "s": st.none() | strings,
            "b": st.none() | st.booleans(),
            "j": st.none() | objects | values,
            "$meta": objects,
        }
    ),
    max_size=8,
)


# constants

wild_integers = st.integers(-5, 5) | integers(8) | integers(64) | st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 200])
wild_floats = floats.filter(math.isfinite) | st.sampled_from([127.5, -128.5, 1e300, 0.1])


def quoted(text: str) -> str:
    """The text as a literal; Python's escapes are the language's, but for \\x ones beyond ASCII."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def written(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


# meaning


def _float32(value: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(value)


def as_kind(kind: str, value: Any) -> Any:
    """A constant as the field it meets sees it."""
    if kind == "f":
        return _float32(float(value))
    return float(value) if kind == "d" else value


def relate(operator: str, left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    return bool(
        {
            "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
            ">": left > right, ">=": left >= right,
        }[operator]
    )  # fmt: skip


def json_kind(value: Any) -> str | None:
    return {bool: "bool", int: "number", float: "number", str: "string"}.get(type(value))


def relate_json(operator: str, left: Any, right: Any) -> bool | None:
    return relate(operator, left, right) if json_kind(left) and json_kind(left) == json_kind(right) else None


def both(results: list[bool | None]) -> bool | None:
    return False if False in results else None if None in results else True


def either(results: list[bool | None]) -> bool | None:
    return True if True in results else None if None in results else False


def negated(result: bool | None) -> bool | None:
    return None if result is None else not result


def like(pattern: str, text: Any) -> bool | None:
    """By translation to a shell pattern."""
    if not isinstance(text, str):
        return None
    shell = {"%": "*", "_": "?"}
    parts = (shell.get(part) or f"[{part[-1]}]" for part in re.findall(r"\\.|.", pattern, re.DOTALL))
    return fnmatch.fnmatchcase(text, "".join(parts))


def wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def truncated(left: int, right: int) -> int:
    return int(math.copysign(1, left) * math.copysign(1, right)) * (abs(left) // abs(right))


def compute(kind: str, operator: str, left: Any, right: Any) -> Any:
    """One step of arithmetic, in the numbers of the kind."""
    if left is None or right is None:
        return None
    if kind == "json":
        if json_kind(left) != "number" or (operator == "%" and isinstance(left, float)):
            return None
        kind = "python" if isinstance(left, int) and isinstance(right, int) else "d"
    if kind in ("int", "python"):
        exact = {
            "+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
            "/": lambda: truncated(left, right), "%": lambda: left - truncated(left, right) * right,
        }[operator]()  # fmt: skip
        return wrap(exact) if kind == "int" else exact
    with np.errstate(all="ignore"):
        number = np.float32 if kind == "f" else np.float64
        a, b = number(left), number(right)
        return (
            a / b if operator == "/" else {"+": a + b, "-": a - b, "*": a * b}[operator]
        ).item()  # exactly that double


# expressions

paths = st.sampled_from(
    [
        ('j["a"]', "j", ["a"]), ("j['b'][0]", "j", ["b", 0]), ("j['a']['b']", "j", ["a", "b"]), ("j[1]", "j", [1]),
        ("a", "$meta", ["a"]), ("$meta['x y']", "$meta", ["x y"]), ("b_['a']", "$meta", ["b_", "a"]),
        ("$meta['b'][1]", "$meta", ["b", 1]),
    ]
)  # fmt: skip


def json_at(row: Row, field: str, keys: list[str | int]) -> Any:
    value = row[field]
    for key in keys:
        if isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        elif isinstance(value, dict):
            value = value.get(str(key))
        else:
            return None
    return value


@st.composite
def json_values(draw: st.DrawFn) -> Case:
    text, field, keys = draw(paths)
    return Case(text, lambda row: json_at(row, field, keys), "json")


numeric_columns = st.sampled_from([*BITS, "f", "d"]).map(
    lambda name: Case(name, lambda row: row[name], name if name in "fd" else "int")
)


@st.composite
def arithmetic(draw: st.DrawFn) -> Case:
    """A column or path under one to three operators."""
    case = draw(numeric_columns | json_values())
    for _ in range(draw(st.integers(1, 3))):
        case = draw(one_step(case))
    return case


@st.composite
def one_step(draw: st.DrawFn, inner: Case) -> Case:
    constant = draw(st.integers(-5, 5) | st.sampled_from([0.5, -1.5, 4.0, 2**62]))
    operator = draw(st.sampled_from("+-*/%"))
    if operator == "%" and (isinstance(constant, float) or inner.kind in "fd"):
        operator = "-"
    if operator in "/%" and not constant:
        constant = 3
    kind = "d" if inner.kind == "int" and isinstance(constant, float) else inner.kind
    reverse = operator in "+-*" and draw(st.booleans())

    def of(row: Row) -> Any:
        value = inner.of(row)
        return compute(kind, operator, constant, value) if reverse and kind != "json" else _json_step(value)

    def _json_step(value: Any) -> Any:
        if not reverse:
            return compute(kind, operator, value, constant)
        if json_kind(value) != "number":
            return None
        return compute("python" if type(value) is type(constant) is int else "d", operator, constant, value)

    text = f"({constant} {operator} {inner.text})" if reverse else f"({inner.text} {operator} {constant})"
    return Case(text, of, kind)


@st.composite
def comparisons(draw: st.DrawFn) -> Case:
    """A number or JSON value with a constant, either way round."""
    value = draw(numeric_columns | arithmetic() | json_values())
    if value.kind == "json":
        constant = draw(st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2**53]) | strings)
    else:
        constant = draw(wild_integers | wild_floats)
    operator = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    relation = relate_json if value.kind == "json" else relate
    meant = as_kind(value.kind, constant)
    if draw(st.booleans()):
        return Case(
            f"{written(constant)} {operator} {value.text}", lambda row: relation(operator, meant, value.of(row))
        )
    return Case(f"{value.text} {operator} {written(constant)}", lambda row: relation(operator, value.of(row), meant))


@st.composite
def string_comparisons(draw: st.DrawFn) -> Case:
    operator, constant = draw(st.sampled_from(["==", "!=", "<", ">="])), draw(strings)
    return Case(f"s {operator} {quoted(constant)}", lambda row: relate(operator, row["s"], constant))


@st.composite
def column_comparisons(draw: st.DrawFn) -> Case:
    left, right = draw(numeric_columns), draw(numeric_columns)
    operator = draw(st.sampled_from(["==", "!=", "<", ">="]))
    exact = left.kind == right.kind == "int"

    def of(row: Row) -> bool | None:
        a, b = left.of(row), right.of(row)
        return relate(operator, a, b) if exact or a is None or b is None else relate(operator, float(a), float(b))

    return Case(f"{left.text} {operator} {right.text}", of)


@st.composite
def ranges(draw: st.DrawFn) -> Case:
    value = draw(numeric_columns)
    low, high = sorted(draw(st.lists(wild_integers, min_size=2, max_size=2, unique=True)))
    first, second = draw(st.sampled_from("<≤")), draw(st.sampled_from("<≤"))
    lower, upper = first.replace("≤", "<="), second.replace("≤", "<=")
    a, b = as_kind(value.kind, low), as_kind(value.kind, high)

    def of(row: Row) -> bool | None:
        return both([relate(lower, a, value.of(row)), relate(upper, value.of(row), b)])

    text = f"{low} {lower} {value.text} {upper} {high}"
    if draw(st.booleans()):
        text = f"{high} {upper.replace('<', '>')} {value.text} {lower.replace('<', '>')} {low}"
    return Case(text, of)


@st.composite
def memberships(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from([*BITS, "f", "d", "s", "b", "json"]))
    constants = {"s": strings, "b": st.booleans(), "f": wild_floats | st.integers(-3, 3), "d": wild_floats}
    if name == "json":
        value = draw(json_values())
        listed = draw(st.lists(st.booleans() | st.integers(-3, 3) | st.just(0.5) | strings, max_size=4))
    else:
        value = Case(name, lambda row: row[name], name)
        listed = draw(st.lists(constants.get(name, wild_integers), max_size=4))

    def of(row: Row) -> bool | None:
        item = value.of(row)
        if item is None or (name == "json" and json_kind(item) is None):
            return None
        relation = relate_json if name == "json" else relate
        return either([relation("==", item, as_kind(value.kind, constant)) for constant in listed])

    text = f"[{', '.join(map(written, listed))}]"
    if draw(st.booleans()):
        return Case(f"{value.text} {draw(st.sampled_from(['not in', 'NOT IN']))} {text}", lambda row: negated(of(row)))
    return Case(f"{value.text} in {text}", of)


@st.composite
def likes(draw: st.DrawFn) -> Case:
    value = draw(st.just(Case("s", lambda row: row["s"])) | json_values())
    pattern = "".join(
        draw(st.lists(st.sampled_from(["a", "b", "%", "_", "\\%", "\\_", "\\\\", "\n", "é"]), max_size=5))
    )
    return Case(f"{value.text} like {quoted(pattern)}", lambda row: like(pattern, value.of(row)))


@st.composite
def null_tests(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from([*BITS, "f", "d", "s", "b", "j"]))
    value = draw(st.just(Case(name, lambda row: row[name])) | json_values())
    if value.kind == "json" and draw(st.booleans()):
        return Case(f"exists {value.text}", lambda row: value.of(row) is not None)
    if draw(st.booleans()):
        return Case(f"{value.text} is null", lambda row: value.of(row) is None)
    return Case(f"{value.text} IS NOT NULL", lambda row: value.of(row) is not None)


@st.composite
def containments(draw: st.DrawFn) -> Case:
    value = draw(json_values())
    wanted = draw(st.lists(st.booleans() | st.integers(-3, 3) | strings, max_size=3))
    every = draw(st.booleans())

    def of(row: Row) -> bool | None:
        items = value.of(row)
        if not isinstance(items, list):
            return None
        present = [any(relate_json("==", item, one) for item in items) for one in wanted]
        return all(present) if every else any(present)

    function = "json_contains_all" if every else "ARRAY_CONTAINS_ANY"
    return Case(f"{function}({value.text}, [{', '.join(map(written, wanted))}])", of)


leaves = st.one_of(
    comparisons(), string_comparisons(), column_comparisons(), ranges(), memberships(), likes(), null_tests(),
    containments(), st.just(Case("b", lambda row: row["b"])), st.just(Case("1 == 1.0", lambda _: True)),
)  # fmt: skip


def combined(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    def joined(operator: str, cases: list[Case], meaning: Callable[[list[bool | None]], bool | None]) -> Case:
        text = operator.join(f"({case.text})" for case in cases)
        return Case(text, lambda row: meaning([case.of(row) for case in cases]))

    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        st.builds(
            lambda operator, cases: joined(operator, cases, both), st.sampled_from([" and ", " AND ", "&&"]), several
        ),
        st.builds(
            lambda operator, cases: joined(operator, cases, either), st.sampled_from([" or ", " OR ", "||"]), several
        ),
        st.builds(
            lambda operator, case: Case(f"{operator}({case.text})", lambda row: negated(case.of(row))),
            st.sampled_from(["not ", "NOT", "!"]),
            inner,
        ),
    )


cases = combined(leaves | combined(leaves))
