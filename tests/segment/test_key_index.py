"""Finding primary keys in a sorted column."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mishards.segment.keys import KeyIndex

TEXT = st.text(alphabet=st.sampled_from("ab\x00é\U0001f600ﬀ"), max_size=3)  # astral and BMP order differ in UTF-16


@given(st.sets(st.integers(-5, 5)), st.lists(st.integers(-7, 7)))
def test_numbers_are_found_by_position(column: set[int], keys: list[int]) -> None:
    """Each number gets its position in the column, or -1."""
    own = sorted(column)

    found = KeyIndex(pa.array(own, pa.int64())).find(pa.array(keys, pa.int64()))

    assert found.tolist() == [own.index(key) if key in own else -1 for key in keys]


@given(st.sets(TEXT), st.lists(TEXT), st.sampled_from([0, 100]))
def test_strings_are_found_by_position(column: set[str], keys: list[str], more: int) -> None:
    """Each string gets its position, whether few are looked up in many (bisection) or many in few (hashing)."""
    own = sorted(column | {f"zz{i:03}" for i in range(more)}, key=str.encode)
    batches = [[key] for key in keys] if more else [keys]

    index = KeyIndex(pa.array(own, pa.string()))

    found = [position for batch in batches for position in index.find(pa.array(batch, pa.string())).tolist()]
    assert found == [own.index(key) if key in own else -1 for key in keys]


def test_the_ends_of_the_column_are_known() -> None:
    """The smallest and the largest key are at hand; an empty column has none."""
    index = KeyIndex(pa.array(["a", "b", "c"]))

    assert (index.min, index.max, len(index)) == ("a", "c", 3)
    assert KeyIndex(pa.array([], pa.int64())).min is None
