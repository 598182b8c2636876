"""Finding primary keys in a sorted column."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mishards.segment.keys import KeyIndex, ascending, last_of_each_key

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


@given(st.sets(st.integers(-5, 5)), st.lists(st.integers(-7, 7), max_size=3))
def test_a_range_that_misses_the_column_holds_no_key_of_it(column: set[int], keys: list[int]) -> None:
    """`may_hold` is true whenever a key is found, and false for a range beside the column."""
    index = KeyIndex(pa.array(sorted(column), pa.int64()))

    low, high = (min(keys), max(keys)) if keys else (None, None)

    if (index.find(pa.array(keys, pa.int64())) >= 0).any():
        assert index.may_hold(low, high)
    assert not index.may_hold(100, 200)
    assert not index.may_hold(-200, -100)


@given(st.lists(st.integers(0, 4)) | st.lists(TEXT))
def test_ascending_keys_are_sorted_and_unique(keys: list[int] | list[str]) -> None:
    """Keys equal to their sorted set are ascending, others are not; strings compare by their bytes."""
    array = pa.array(keys, pa.int64() if not keys else None)

    assert ascending(array) == (
        keys == sorted(set(keys), key=lambda key: key.encode() if isinstance(key, str) else key)
    )


@given(st.lists(st.integers(0, 4)) | st.lists(TEXT))
def test_the_last_of_each_key_comes_in_their_order(keys: list[int] | list[str]) -> None:
    """One position for each key, that of its last row."""
    array = pa.array(keys, pa.int64() if not keys else None)

    positions = last_of_each_key(array)

    assert ascending(array.take(positions))
    assert set(positions.tolist()) == {len(keys) - 1 - keys[::-1].index(key) for key in keys}
