"""Fresh rows and tombstones as bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from segment_rows import batch

from mishards.segment.fresh import (
    concat,
    decode_rows,
    decode_tombstones,
    encode_rows,
    encode_tombstones,
    tombstones_of,
)
from mishards.segment.ipc import from_stream, single_batch, to_stream
from mishards.segment.write import vectors_of


@pytest.mark.parametrize("keys", [[3, 1, 2], ["b", "a", "ü"], []])
def test_rows_come_back_equal(keys: list[int] | list[str]) -> None:
    """Rows survive encoding with their nulls, vectors and order."""
    rows = batch(keys)

    assert decode_rows(encode_rows(rows, collection_id=7, shard=1)).equals(rows)


@pytest.mark.parametrize("keys", [[3, 1], ["b", "a"], []])
def test_tombstones_come_back_equal(keys: list[int] | list[str]) -> None:
    """Tombstones survive encoding with the reach of each."""
    stones = concat([tombstones_of(pa.array(keys, pa.string() if keys == ["b", "a"] else pa.int64()), 5, 9)] * 2)

    back = decode_tombstones(encode_tombstones(stones))

    assert back.keys.equals(stones.keys)
    assert back.below.tolist() == [5] * 2 * len(keys)
    assert back.partitions.tolist() == [9] * 2 * len(keys)


@pytest.mark.parametrize("offset", range(9))
def test_rows_are_aligned_wherever_a_frame_put_them(offset: int) -> None:
    """A stream that begins at an odd address still gives arrays that NumPy and FAISS may read in place."""
    data = bytes(offset) + bytes(to_stream(batch([1, 2, 3])))

    rows = from_stream(memoryview(data)[offset:])

    assert rows.equals(batch([1, 2, 3]))
    assert vectors_of(rows.column("102"), 3).flags.aligned
    assert rows.column("100").to_numpy().ctypes.data % 8 == 0


def test_a_table_of_several_chunks_is_one_batch() -> None:
    """A stream holds one batch, however the table was put together; an empty table keeps its columns."""
    table = pa.Table.from_batches([batch([1, 2]), batch([3])])

    assert from_stream(to_stream(table)).column("100").to_pylist() == [1, 2, 3]
    assert single_batch(table.slice(0, 0)).schema == table.schema


def test_the_vectors_of_a_slice_are_its_own() -> None:
    """A slice of rows gives the matrix of that slice without a copy."""
    rows = batch([1, 2, 3]).slice(1, 2)

    matrix = vectors_of(rows.column("102"), 3)

    assert np.array_equal(matrix, [[1, 1.5, -1], [2, 2.5, -2]])
    assert not matrix.flags.owndata


def test_tombstones_of_an_upsert_are_little_more_than_their_keys() -> None:
    """Tombstones that reach everything older, in every partition, are stored without saying so for each key."""
    stones = tombstones_of(pa.array(range(1000), pa.int64()))

    data = encode_tombstones(stones)

    assert len(data) < 1000 * 8 + 600
    back = decode_tombstones(data)
    assert back.keys.equals(stones.keys)
    assert not back.below.any() and not back.partitions.any()
    assert len(back.below) == len(back.partitions) == 1000


@pytest.mark.parametrize(
    ("keys", "expected"), [([5, -3, 4], (-3, 5)), (["b", "a", "ü"], ("a", "ü")), ([], (None, None))]
)
def test_the_key_range_of_tombstones_is_their_ends(
    keys: list[int] | list[str], expected: tuple[object, object]
) -> None:
    """The smallest and the largest key, whatever the order; none without keys."""
    assert tombstones_of(pa.array(keys, pa.int64() if not keys else None)).key_range == expected
