"""P5: what a flush or a merge keeps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from segment_rows import NAME, PK, VECTOR, batch, table

from mishards.errors import Kind, MishardsError
from mishards.model import TS_COLUMN, VERSION_COLUMN
from mishards.segment.fresh import tombstones_of
from mishards.segment.rewrite import Input, live_table, versioned


def stones(*keys: int, below: int = 0, partition: int = 0):
    return tombstones_of(pa.array(keys, pa.int64()), below, partition)


def test_a_flush_keeps_the_newest_row_of_each_key() -> None:
    """Fresh rows of several commits become one sorted table of those that no later tombstone kills."""
    inputs = [
        Input(versioned(batch([1, 2, 3], ["1@4", "2@4", "3@4"]), 4), 9),
        Input(versioned(batch([2, 5], ["2@5", "5@5"]), 5), 9),
    ]

    live = live_table(inputs, [(4, stones(1, 2, 3)), (5, stones(2, 5)), (6, stones(3))], PK)

    assert live.column(NAME).to_pylist() == ["1@4", "2@5", "5@5"]
    assert live.column(VERSION_COLUMN).to_pylist() == [4, 5, 5]
    assert live.column(VECTOR).to_pylist() == [[0, 0.5, 0], [0, 0.5, 0], [1, 1.5, -1]]


def test_a_merge_drops_what_bitmaps_and_tombstones_mask() -> None:
    """Segments lose the rows that their delete bitmap holds and those killed since; the rest keep their versions."""
    inputs = [
        Input(table([1, 4], [3, 4], ["a", "d"]), 9, np.array([True, False])),
        Input(table([2, 3], [5, 6], ["b", "c"]), 9),
    ]

    live = live_table(inputs, [(7, stones(3, below=6)), (8, stones(2, partition=9)), (9, stones(4, partition=8))], PK)

    assert live.column(PK).to_pylist() == [3, 4]
    assert live.column(VERSION_COLUMN).to_pylist() == [6, 4]


def test_columns_may_lie_in_another_order() -> None:
    """Inputs written at different times need not order their columns alike."""
    one, two = table([1], [3], ["a"]), table([2], [3], ["b"])

    live = live_table([Input(one, 9), Input(two.select(two.column_names[::-1]), 9)], [], PK)

    assert live.column(PK).to_pylist() == [1, 2]


def test_nothing_may_be_left() -> None:
    """When every row is dead the table is empty and keeps its columns."""
    live = live_table([Input(table([1], [3], ["a"]), 9)], [(4, stones(1))], PK)

    assert live.num_rows == 0
    assert VECTOR in live.column_names


def test_two_live_rows_of_a_key_are_refused() -> None:
    """A missing tombstone stops the rewrite and names the key, before anything is written."""
    inputs = [Input(table([1, 2], [3, 3], "ab"), 9), Input(table([2], [4], "c"), 9)]

    with pytest.raises(MishardsError, match="primary key 2 has two live rows") as raised:
        live_table(inputs, [], PK)

    assert raised.value.kind is Kind.INTERNAL


def test_expired_rows_are_left_out() -> None:
    """Rows of a timestamp up to the cutoff go, those of an unknown one stay, and what is kept keeps its timestamp."""
    inputs = [
        Input(versioned(batch([1, 2], ["old", "old"]), 4, ts=400), 9),
        Input(versioned(batch([3], ["new"]), 5, ts=500), 9),
        Input(table([4], [3], ["unknown"]), 9),
    ]

    live = live_table(inputs, [], PK, expired_ts=400)

    assert live.column(PK).to_pylist() == [3, 4]
    assert live.column(TS_COLUMN).to_pylist() == [500, 0]
