"""How the columns of a write request become stored rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.errors import Kind, MishardsError
from mishards.model import Schema
from mishards.schema.columns import Column
from mishards.schema.definition import FieldSpec, define_schema
from mishards.schema.keys import physical_schema
from mishards.schema.rows import encode_keys, encode_rows

KEY = FieldSpec(name="id", type=5, primary_key=True)
VECTOR = FieldSpec(name="vec", type=101, params={"dim": "2"})


def schema_with(*specs: FieldSpec, dynamic: bool = False, key: FieldSpec = KEY) -> Schema:
    return define_schema([key, VECTOR, *specs], dynamic=dynamic)


def columns_of(rows: int, **more: Column) -> dict[str, Column]:
    vectors = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return {"id": Column(np.arange(rows), type=5), "vec": Column(vectors, type=101), **more}


def refusal(schema: Schema, columns: dict[str, Column], rows: int = 2) -> str:
    with pytest.raises(MishardsError) as caught:
        encode_rows(schema, columns, rows, None)
    assert caught.value.kind is Kind.PARAMETER_INVALID
    return caught.value.message


def test_rows_have_the_physical_schema_and_the_same_vectors_bit_for_bit() -> None:
    """Columns are named by field id in schema order, vectors are kept bit for bit."""
    schema = schema_with(dynamic=True)
    vectors = np.array([[1.1, -0.0], [3e-45, 3.4e38]], np.float32)

    batch = encode_rows(schema, {"vec": Column(vectors), "id": Column(np.array([7, 8]))}, 2, None)

    assert batch.schema == physical_schema(schema)
    assert batch.schema.names == ["100", "101", "102"]
    assert batch.column("101").flatten().to_numpy().tobytes() == vectors.tobytes()
    assert batch.column("102").to_pylist() == [b"{}", b"{}"]


def test_every_scalar_type_is_stored_at_its_width() -> None:
    """Each scalar type has its Arrow type; small integers narrow from int32."""
    types = {"bool": 1, "i8": 2, "i16": 3, "i32": 4, "i64": 5, "f": 10, "d": 11, "t": 21, "j": 23}
    specs = [FieldSpec(name=name, type=type, params={"max_length": "9"}) for name, type in types.items()]
    columns = columns_of(
        2,
        bool=Column(np.array([True, False])),
        i8=Column(np.array([-128, 127], np.int32)),
        i16=Column(np.array([-32768, 32767], np.int32)),
        i32=Column(np.array([-(2**31), 2**31 - 1], np.int32)),
        i64=Column(np.array([-(2**63), 2**63 - 1])),
        f=Column(np.array([0.1, 2], np.float32)),
        d=Column(np.array([0.1, 2])),
        t=Column(["é", ""]),
        j=Column([b'{"a":1}', b"[1]"]),
    )

    batch = encode_rows(schema_with(*specs), columns, 2, None)

    assert [str(kind) for kind in batch.schema.types[2:]] == (
        ["bool", "int8", "int16", "int32", "int64", "float", "double", "string", "binary"]
    )
    assert batch.column("103").to_pylist() == [-128, 127]
    assert batch.column("109").to_pylist() == ["é", ""]


def test_nulls_and_defaults_fill_the_rows_without_a_value() -> None:
    """A row without a value gets the default, else null; so does a column that is absent."""
    schema = schema_with(
        FieldSpec(name="n", type=21, nullable=True, params={"max_length": "9"}),
        FieldSpec(name="d", type=5, default=9, default_type=5),
        FieldSpec(name="nd", type=10, nullable=True, default=0.5, default_type=10),
    )
    some = np.array([True, False, True])
    given_columns = columns_of(
        3, n=Column(["a", "c"], some), d=Column(np.array([1, 3]), some), nd=Column(np.array([1, 3], np.float32), some)
    )

    filled = encode_rows(schema, given_columns, 3, None)
    absent = encode_rows(schema, columns_of(3), 3, None)

    assert filled.column("102").to_pylist() == ["a", None, "c"]
    assert filled.column("103").to_pylist() == [1, 9, 3]
    assert filled.column("104").to_pylist() == [1.0, 0.5, 3.0]
    assert absent.column("102").to_pylist() == [None] * 3
    assert absent.column("103").to_pylist() == [9] * 3


@given(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=20))
def test_any_mixture_of_values_and_nulls_comes_back(values: list[int | None]) -> None:
    """What is decoded from the stored column is what was sent, null by null."""
    schema = schema_with(FieldSpec(name="n", type=4, nullable=True))
    valid = np.array([value is not None for value in values])
    compact = np.array([value for value in values if value is not None], np.int32)

    batch = encode_rows(schema, columns_of(len(values), n=Column(compact, valid)), len(values), None)

    assert batch.column("102").to_pylist() == values


def test_generated_keys_become_the_primary_key() -> None:
    """auto_id keys are stored as they are, or as decimal strings for VARCHAR; the request must not hold any."""
    generated = np.array([455, 456])
    text_key = FieldSpec(name="id", type=21, primary_key=True, auto_id=True, params={"max_length": "64"})
    columns = columns_of(2)
    vectors = {"vec": columns["vec"]}

    ints = encode_rows(schema_with(), vectors, 2, generated)
    texts = encode_rows(schema_with(key=text_key), vectors, 2, generated)

    assert ints.column("100").to_pylist() == [455, 456]
    assert texts.column("100").to_pylist() == ["455", "456"]
    with pytest.raises(MishardsError, match="auto_id"):
        encode_rows(schema_with(), columns, 2, generated)
    assert encode_keys(schema_with(), columns, 2).to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"other": Column([1, 2])}, "field other does not exist"),
        ({"vec": None}, "fieldSchema(vec) has no corresponding fieldData"),
        ({"id": Column(np.arange(3))}, "(3) of field id does not match the request's (2)"),
        ({"id": Column(np.array([1]), np.array([True, False]))}, "id is not nullable, but row number 1 is null"),
        ({"id": Column(np.arange(2), np.array([True]))}, "length of valid_data (1)"),
        ({"vec": Column(np.zeros((2, 3), np.float32))}, "dimension 3 does not match field 'vec' (2)"),
        ({"vec": Column(np.array([[0, 0], [0, np.nan]], np.float32))}, "'nan' is not a number or infinity"),
        ({"vec": Column(np.array([[0, np.inf], [0, 0]], np.float32))}, "field vec, row number: 0"),
        ({"i8": Column(np.array([1, 128]))}, "value (128) of field i8 is out of range: [-128, 127], row number: 1"),
        ({"i8": Column(["a", "b"], type=21)}, "expected Int8, got VarChar"),
        ({"f": Column(np.array([np.nan, 1], np.float32))}, "field f, row number: 0"),
        ({"t": Column(["a", "éé"])}, "row number: 1, length: 4, max length: 3"),
        ({"j": Column([b"{}", b"{"])}, "invalid JSON in field j, row number: 1"),
        ({"j": Column([b"{}", b'"' + b"x" * 65536 + b'"'])}, "row number: 1, length: 65538, max length: 65536"),
        ({"$meta": Column([b"{}", b"[]"])}, "should be a JSON object, row number: 1"),
        ({"$meta": Column([b'{"id":1}', b"{}"])}, "cannot include the static field: id, row number: 0"),
    ],
)
def test_wrong_values_are_refused_with_their_row_and_limit(change: dict[str, Any], words: str) -> None:
    """A value that breaks the schema is refused with the fact, the value, the limit and the row."""
    schema = schema_with(
        FieldSpec(name="i8", type=2, default=0, default_type=4),
        FieldSpec(name="f", type=10, nullable=True),
        FieldSpec(name="t", type=21, nullable=True, params={"max_length": "3"}),
        FieldSpec(name="j", type=23, nullable=True),
        dynamic=True,
    )
    columns = {name: column for name, column in {**columns_of(2), **change}.items() if column is not None}

    assert words in refusal(schema, columns)


def test_the_row_number_counts_the_rows_without_a_value() -> None:
    """The row named in an error is the request's row, also where earlier rows have no value."""
    schema = schema_with(FieldSpec(name="t", type=21, nullable=True, params={"max_length": "1"}))

    words = refusal(schema, columns_of(3, t=Column(["toolong"], np.array([False, False, True]))), 3)

    assert "row number: 2" in words


def test_an_empty_request_is_refused() -> None:
    """A write without rows is refused."""
    assert "should be greater than 0" in refusal(schema_with(), {}, 0)
