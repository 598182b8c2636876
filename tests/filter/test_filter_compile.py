"""What compiling a filter refuses, in Milvus' words, and what it tells: keys, columns, templates."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mishards.errors import Kind, MishardsError
from mishards.filter import compile_filter
from mishards.model import DataType, Field, FieldId, Schema


def field(id: int, name: str, type: DataType, **options: Any) -> Field:
    return Field(id=FieldId(id), name=name, type=type, **options)


FIELDS = (
    field(100, "id", DataType.INT64, primary_key=True),
    field(101, "tiny", DataType.INT8),
    field(102, "price", DataType.FLOAT),
    field(103, "name", DataType.VARCHAR, max_length=64),
    field(104, "vector", DataType.FLOAT_VECTOR, dim=4),
    field(105, "doc", DataType.JSON),
    field(106, "flag", DataType.BOOL),
    field(107, "weight", DataType.DOUBLE),
)
STRICT = Schema(fields=FIELDS)
DYNAMIC = Schema(fields=(*FIELDS, field(108, "$meta", DataType.JSON, dynamic=True)), dynamic=True)
STRING_KEY = Schema(fields=(field(100, "id", DataType.VARCHAR, primary_key=True, max_length=64),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zzz == 1", "field zzz not exist"),
        ("$meta['a'] == 1", "field $meta not exist"),
        ("not id == 1", "not op can only be applied on boolean expression"),
        ("not name", "not op can only be applied on boolean expression"),
        ("id == 'a'", "comparisons between Int64, element_type: None and VarChar elementType: None are not supported"),
        ("'a' < id", "comparisons between VarChar, element_type: None and Int64 elementType: None are not supported"),
        (
            "name > 1.5",
            "comparisons between VarChar, element_type: None and Double elementType: None are not supported",
        ),
        ("flag == 1", "comparisons between Bool, element_type: None and Int64 elementType: None are not supported"),
        ("name == id", "comparisons between VarChar, element_type: None and Int64 elementType: None are not supported"),
        ("id == [1]", "comparisons between Int64, element_type: None and Array elementType: None are not supported"),
        ("doc['a'] == id", "two column comparison with JSON type is not supported"),
        ("(id == 1) == flag", "only comparison between two fields is supported"),
        ("id", "predicate is not a boolean expression: id, data type: Int64"),
        ("doc['a']", "predicate is not a boolean expression: doc['a'], data type: JSON"),
        ("id and flag", "'and' can only be used between boolean expressions"),
        ("flag or 1", "'or' can only be used between boolean expressions"),
        ("id in ['a']", "value 'string_val:\"a\"' in list cannot be casted to Int64"),
        ("tiny in [1, 2.5]", "value 'float_val:2.5' in list cannot be casted to Int8"),
        ("name in [1]", "value 'int64_val:1' in list cannot be casted to VarChar"),
        ("flag in [true, 1]", "value 'int64_val:1' in list cannot be casted to Bool"),
        ("id in 5", "the right-hand side of 'in' must be a list, but got: int64_val:5"),
        ("id in tiny", "value in list cannot be a non-const expression"),
        ("id in [tiny]", "array element type must be generic value"),
        ("5 in [5]", "'term' can only be used on non-const expression"),
        ("id like 'a'", "like operation on non-string or no-json field is unsupported"),
        ("name like 5", "the pattern of like must be a string"),
        (r"name like 'a\\'", "the pattern of like ends with an escape: a\\"),
        ("id / 0 == 1", "division or modulus by zero"),
        ("id % 0 == 1", "division or modulus by zero"),
        ("price / 0.0 > 1", "division or modulus by zero"),
        ("1 % 0 == id", "division or modulus by zero"),
        ("price % 2 == 1", "modulo can only apply on integer types"),
        ("id % 1.5 == 1", "modulo can only apply on integer types"),
        ("id + tiny == 1", "not supported to do arithmetic operations between multiple fields"),
        ("2 / id == 1", "'divide' is only supported with a constant on the right"),
        ("2 ** id == 1", "'power' is only supported with a constant on the right"),
        ("name + 1 == 1", "'add' can only be used between integer or floating expressions"),
        ("id + 9223372036854775808 > 0", "integer constant 9223372036854775808 does not fit into 64 bits"),
        ("-name == 1", "'multiply' can only be used between integer or floating expressions"),
        ("-'a' == name", "'-' can only be applied on integer or floating expressions"),
        ("5 < id < 1", "invalid range: lowerbound is greater than upperbound"),
        ("1 < id <= 1", "invalid range: lowerbound is greater than upperbound"),
        ("1 < id > 0", "a range needs two operators of one direction, got < and >"),
        ("tiny < id < 3", "lowerbound cannot be a non-const expression"),
        ("1 < id < tiny", "upperbound cannot be a non-const expression"),
        ("vector == 1", "field vector of type FloatVector cannot be used in a filter"),
        ("vector is null", "field vector of type FloatVector cannot be used in a filter"),
        ("id['a'] == 1", "Int64 data type not supported accessed with []"),
        ("exists id", "exists operations are only supportted on json field, got:Int64"),
        ("exists doc", "exists operations are only supportted on json key"),
        ("json_contains(name, 1)", "contains operation are only supported on json or array fields now, got: VarChar"),
        ("json_contains_all(doc['a'], 1)", "contains_all operation element must be an array"),
        ("json_contains(doc['a'])", "json_contains takes 2 arguments, got 1"),
        ("id == {x}", "the value of expression template variable name {x} is not found"),
        ("id == 1" + " + 1" * 200, "the expression is nested deeper than 100 levels"),
        ("id ==", "syntax error: the expression ends too early"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    """A filter that is wrong is refused as a parameter, with its text and the reason in Milvus' words."""
    with pytest.raises(MishardsError) as caught:
        compile_filter(text, STRICT)

    assert caught.value.kind is Kind.PARAMETER_INVALID
    assert caught.value.message == f"cannot parse expression: {text}, error: {reason}"


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("text_match(name, 'a b')", "function text_match"),
        ("TEXT_MATCH(name, 'a b', minimum_should_match=1)", "argument minimum_should_match"),
        ("phrase_match(name, 'a', 1)", "function phrase_match"),
        ("id > 1 and random_sample(0.1)", "function random_sample"),
        ("st_within(name, 'POINT(1 1)')", "function st_within"),
        ("element_filter(doc, $[a] > 1)", "struct field"),
        ("doc[a] == 1", "struct field"),
        ("name =~ 'a.*'", "operator =~"),
        ("name !~ 'a.*'", "operator !~"),
        ("id & 1 == 1", "operator &"),
        ("id << 1 == 2", "operator <<"),
        ("~id == 1", "operator ~"),
        ("id < ISO '2025-01-01T00:00:00Z'", "literal of type ISO"),
    ],
)
def test_unsupported(text: str, construct: str) -> None:
    """What Milvus has and we have not is named."""
    with pytest.raises(MishardsError) as caught:
        compile_filter(text, STRICT)

    assert caught.value.kind is Kind.UNSUPPORTED
    assert caught.value.message == f"cannot parse expression: {text}, error: {construct} is not supported"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("id == 5", [5]),
        ("5 == id", [5]),
        ("id == 5.0", [5]),
        ("id == 5.5", []),
        ("id == 9223372036854775808", []),
        ("id in [3, 1, 3]", [3, 1]),
        ("id in []", []),
        ("id in [1, 9223372036854775808]", [1]),
        ("id in [1, 2] and price > 1", [1, 2]),
        ("price > 1 and (flag and id == 7)", [7]),
        ("id in [1, 2, 3] and id == 2", [2]),
        ("id == 1 or id in [2, 1]", [1, 2]),
        ("id == 1 or flag", None),
        ("id != 1", None),
        ("not (id in [1])", None),
        ("id not in [1]", None),
        ("id > 1", None),
        ("tiny == 1", None),
        ("id + 1 == 2", None),
        ("id == tiny", None),
        ("", None),
    ],
)
def test_keys(text: str, keys: list[int] | None) -> None:
    """A filter that lists primary keys tells them, once each; any other one tells none."""
    assert compile_filter(text, STRICT).keys == keys


def test_string_keys() -> None:
    """Keys are strings when the primary key is."""
    assert compile_filter("id in ['b', 'a', 'b']", STRING_KEY).keys == ["b", "a"]
    assert compile_filter("id == 'a'", STRING_KEY).keys == ["a"]


def test_keys_of_many() -> None:
    """Ten thousand keys are read from the text."""
    assert compile_filter(f"id in {list(range(10_000))}", STRICT).keys == list(range(10_000))


def test_columns() -> None:
    """A filter names the columns it reads: of dynamic keys the hidden field's; a schema's field goes before a key."""
    assert compile_filter("id > 1 and name like 'a%'", STRICT).columns == {"100", "103"}
    assert compile_filter("doc['a'] == 1 or exists doc['b']", STRICT).columns == {"105"}
    assert compile_filter("colour == 'red' and flag", DYNAMIC).columns == {"106", "108"}
    assert compile_filter("$meta['flag'] == true", DYNAMIC).columns == {"108"}
    assert compile_filter("1 == 1", STRICT).columns == frozenset()


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_blank(text: str) -> None:
    """A blank filter matches every row and reads no column."""
    compiled = compile_filter(text, STRICT)

    assert compiled.is_all
    assert compiled.columns == frozenset()
    assert compiled.mask(pa.table({"100": [1, 2, 3]})).tolist() == [True] * 3
    assert not compile_filter("id > 0", STRICT).is_all


def test_templates() -> None:
    """Placeholders stand for constants and lists, of the types that the template gives."""
    table = pa.table({"100": pa.array([1, 2, 3]), "103": ["a", "b", "c"], "106": [True, False, True]})

    def matched(text: str, **template: Any) -> list[int]:
        mask = compile_filter(text, STRICT, template).mask(table)
        return [position for position, hit in enumerate(mask, 1) if hit]

    assert matched("id == {x}", x=2) == [2]
    assert matched("id == {x}", x=3) == [3]
    assert matched("id < {x}", x=2.5) == [1, 2]
    assert matched("id in {x}", x=[1, 3]) == [1, 3]
    assert matched("id in [{x}, {y}]", x=1, y=2) == [1, 2]
    assert matched("{x} < id <= {y}", x=1, y=3) == [2, 3]
    assert matched("name == {x} or flag == {y}", x="b", y=True) == [1, 2, 3]
    assert matched("name like {x}", x="_") == [1, 2, 3]
    assert matched("id % {x} == 1", x=2) == [1, 3]
    assert compile_filter("id in {x}", STRICT, {"x": [2, 3]}).keys == [2, 3]


def test_templates_of_other_types() -> None:
    """A template's value has to be a bool, a number, a string or a list of such, and fit the field."""
    with pytest.raises(MishardsError, match="template variable x is a dict, not a bool, number, string or list"):
        compile_filter("id == {x}", STRICT, {"x": {}})
    with pytest.raises(MishardsError, match="value 'bool_val:true' in list cannot be casted to Int64"):
        compile_filter("id in {x}", STRICT, {"x": [1, True]})


def test_long_filters() -> None:
    """Thousands of alternatives, and deep parentheses, are no deep nesting."""
    table = pa.table({"100": pa.array([1, 2_999, 3_000])})

    alternatives = compile_filter(" or ".join(f"id == {key}" for key in range(3_000)), STRICT)
    parentheses = compile_filter("(" * 1_000 + "id == 1" + ")" * 1_000, STRICT)

    assert alternatives.mask(table).tolist() == [True, True, False]
    assert parentheses.mask(table).tolist() == [True, False, False]
