"""Random filters over random rows, against their meaning row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from filter_cases import SCHEMA, Case, cases, leaves, rows, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mishards.filter import compile_filter


def random(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def masked(text: str, data: list[dict[str, Any]], chunks: int = 0) -> list[bool]:
    mask = compile_filter(text, SCHEMA).mask(table(data, chunks))
    assert mask.dtype == np.bool_
    return [bool(value) for value in mask]


@random(250)
@given(leaves, rows, st.integers(0, 3))
def test_a_predicate_holds_for_the_rows_it_should(case: Case, data: list[dict[str, Any]], chunks: int) -> None:
    """One comparison, membership, pattern, null test or containment is true for the rows that its meaning says."""
    assert masked(case.text, data, chunks) == [case.of(row) is True for row in data], case.text


@random(120)
@given(cases, rows, st.integers(0, 3))
def test_a_combination_holds_for_the_rows_it_should(case: Case, data: list[dict[str, Any]], chunks: int) -> None:
    """and, or and not combine in three-valued logic."""
    assert masked(case.text, data, chunks) == [case.of(row) is True for row in data], case.text


@random(40)
@given(leaves, leaves, rows)
def test_de_morgan(left: Case, right: Case, data: list[dict[str, Any]]) -> None:
    """De Morgan's laws hold, unknowns included."""
    a, b = f"({left.text})", f"({right.text})"

    assert masked(f"not ({a} and {b})", data) == masked(f"(not {a}) or (not {b})", data)
    assert masked(f"not ({a} or {b})", data) == masked(f"not {a} and not {b}", data)


@random(40)
@given(leaves, rows)
def test_a_filter_names_the_columns_it_needs(case: Case, data: list[dict[str, Any]]) -> None:
    """The columns that a filter names suffice to evaluate it."""
    compiled = compile_filter(case.text, SCHEMA)
    whole = table(data, 1)

    narrow = whole.select([name for name in whole.schema.names if name in compiled.columns])

    if compiled.columns:  # without columns a table has no rows
        assert compiled.mask(narrow).tolist() == compiled.mask(whole).tolist()
    assert compiled.columns <= {field.column for field in SCHEMA.scalars}
