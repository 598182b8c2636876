"""Where numbers meet their limits: 64-bit integers, narrow fields, float32, division, powers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mishards.filter import compile_filter
from mishards.model import DataType, Field, FieldId, Schema

SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="tiny", type=DataType.INT8, nullable=True),
        Field(id=FieldId(102), name="single", type=DataType.FLOAT),
        Field(id=FieldId(103), name="double", type=DataType.DOUBLE),
    )
)
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def matches(text: str, value: Any) -> bool:
    """Whether a row that holds the value in the one field of the filter matches."""
    types = {"100": pa.int64(), "101": pa.int8(), "102": pa.float32(), "103": pa.float64()}
    compiled = compile_filter(text, SCHEMA)
    (column,) = compiled.columns
    return bool(compiled.mask(pa.table({column: pa.array([value], types[column])}))[0])


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        # beyond 2**53 integers stay exact
        ("id == 9007199254740993", 2**53 + 1, True),
        ("id == 9007199254740992.0", 2**53 + 1, False),
        ("id < 9223372036854775807", HIGHEST, False),
        ("id <= 9223372036854775807", HIGHEST, True),
        ("id < 9223372036854775808", HIGHEST, True),
        ("id >= -9223372036854775808", LOWEST, True),
        ("id > -9223372036854775809", LOWEST, True),
        ("id < 1e999", HIGHEST, True),
        # constants that the field cannot hold
        ("tiny < 300", 127, True),
        ("tiny == 300", 44, False),
        ("tiny != 300", 44, True),
        ("tiny > -129", -128, True),
        ("tiny < 300", None, False),
        ("not (tiny == 300)", None, False),
        ("tiny in [300, 5]", 44, False),
        ("tiny < 1.5", 1, True),
        ("tiny > -1.5", -1, True),
        ("tiny == 1.5", 1, False),
        ("tiny == 1.0", 1, True),
        # a FLOAT field meets constants as float32
        ("single == 0.1", 0.1, True),
        ("single in [0.1]", 0.1, True),
        ("single > 0.1", 0.1, False),
        ("single + 0.1 == 0.3", 0.2, True),
        ("single < 1e300", 3e38, True),
        ("double == 0.1", 0.1, True),
        ("double in [0]", -0.0, True),
        ("double == 1", 1.0, True),
        # division drops the fraction, the remainder has the sign of the left side
        ("id / 2 == -1", -3, True),
        ("id % 2 == -1", -3, True),
        ("id % 2 == 1", 3, True),
        ("id / -1 == -5", 5, True),
        ("id % -1 == 0", LOWEST, True),
        ("id / 2.0 == 1.5", 3, True),
        ("7 / 2 == 3 and id == 1", 1, True),
        ("-7 / 2 == -3 and id == 1", 1, True),
        ("-7 % 3 == -1 and id == 1", 1, True),
        # 64-bit arithmetic wraps around; narrow fields have room
        ("id + 1 < 0", HIGHEST, True),
        ("id / -1 < 0", LOWEST, True),
        ("tiny * 2 == 254", 127, True),
        ("-tiny == 128", -128, True),
        ("(tiny + 3) * 2 - 1 == 9", 2, True),
        ("+tiny == 2", 2, True),
        # powers are doubles
        ("id ** 2 == 9", 3, True),
        ("single ** 0.5 == 3", 9.0, True),
        ("double == 2 ** -1", 0.5, True),
        ("double == 2 ** 10", 1024.0, True),
        ("double < 10 ** 400", 1.0, True),
    ],
)  # fmt: skip
def test_numbers(text: str, value: Any, expected: bool) -> None:
    """Numbers compare exactly, integer arithmetic is C's on 64 bits, FLOAT fields work in float32."""
    assert matches(text, value) is expected


def test_columns_of_two_types() -> None:
    """Columns compare as integers when both are, else as doubles."""
    table = pa.table(
        {
            "100": pa.array([1, 2**53 + 1, 3, 4]),
            "101": pa.array([1, 1, None, 5], pa.int8()),
            "103": pa.array([1.0, 2.0**53, 3.0, float("nan")]),
        }
    )

    assert compile_filter("id == tiny", SCHEMA).mask(table).tolist() == [True, False, False, False]
    assert compile_filter("id == double", SCHEMA).mask(table).tolist() == [True, True, True, False]
    assert compile_filter("id + 1 > tiny", SCHEMA).mask(table).tolist() == [True, True, False, False]
