"""The tail: any of the files it holds, at any version, while it grows and shrinks (P8, P9)."""

from __future__ import annotations

import itertools

import held as h
import numpy as np
import pyarrow as pa
import pytest

from mishards.model import DataType, Field, FieldId, FileId, FileKind, Schema
from mishards.reader import tail as tail_module
from mishards.reader.tail import OWN_BLOCK_BYTES, Growing, Tail


def tail_of(*files: tuple[int, list[int]]) -> Tail:
    """File number n was committed at version n."""
    tail = Tail(h.schema())
    for number, keys in files:
        tail.add(h.file(number, FileKind.ROWS, len(keys), number), h.batch(h.rows(keys)), {})
    return tail


@pytest.mark.parametrize("asked", [files for n in range(1, 4) for files in itertools.combinations((1, 2, 3), n)])
def test_a_source_has_the_rows_of_exactly_the_files_asked_for(asked: tuple[int, ...]) -> None:
    """Any subset of the files in a block, with the number of rows that they stand for."""
    keys = {1: [1, 2], 2: [10, 11, 12], 3: [20]}
    tail = tail_of(*keys.items())

    sources = tail.sources(asked, 9)  # type: ignore[arg-type]

    assert h.alive(sources) == [key for number in asked for key in keys[number]]
    assert sum(source.planned for source in sources) == sum(len(keys[number]) for number in asked)


def test_a_kill_counts_from_its_version_on_whether_it_came_before_the_rows_or_after() -> None:
    """Tombstones known when a file is added and those that arrive later give the same (I11)."""
    late, early = tail_of((1, [1, 2, 3])), Tail(h.schema())
    late.apply(h.kills([2]), 4)
    early.add(h.file(1, FileKind.ROWS, 3, 1), h.batch(h.rows([1, 2, 3])), {4: h.kills([2])})

    for tail in (late, early):
        assert h.alive(tail.sources([1], 3)) == [1, 2, 3]  # type: ignore[list-item]
        assert h.alive(tail.sources([1], 4)) == [1, 3]  # type: ignore[list-item]


def test_a_kill_spares_rows_written_later_or_elsewhere() -> None:
    """Only rows of a smaller version die, only below the version looked at, only in the partition named (P4)."""
    tail = tail_of((1, [1]), (5, [1]))
    tail.apply(h.kills([1]), 5)
    assert h.alive(tail.sources([1, 5], 9)) == [1]  # type: ignore[list-item]

    looked = tail_of((3, [1]), (5, [2]))
    looked.apply(h.kills([1, 2], below=5), 7)
    assert h.alive(looked.sources([3, 5], 9)) == [2]  # type: ignore[list-item]

    elsewhere = tail_of((1, [1]))
    elsewhere.apply(h.kills([1], partition=h.PARTITION + 1), 5)
    assert h.alive(elsewhere.sources([1], 9)) == [1]  # type: ignore[list-item]


def test_a_source_stays_as_it_was_while_the_tail_grows_and_rows_die() -> None:
    """A search under way sees neither rows nor deaths that come after it began."""
    tail = tail_of((1, [1, 2]))
    (source,) = tail.sources([1], 9)  # type: ignore[list-item]
    (dying,) = tail.sources([1], 9)  # type: ignore[list-item]

    for number in range(2, 40):
        tail.add(h.file(number, FileKind.ROWS, 1, number), h.batch(h.rows([number], vector=(9, 9))), {})
    tail.apply(h.kills([1]), 9)

    assert h.alive([source]) == h.alive([dying]) == [1, 2]
    assert source.vectors(h.VECTOR).tolist() == [[1, 0], [1, 0]]
    assert source.place_of(np.array([0, 1]))[0].tolist() == [1, 1]


def test_unit_vectors_follow_a_block_that_grows() -> None:
    """They are the vectors at length one, for old snapshots and new ones."""
    tail = tail_of((1, [1]))
    (old,) = tail.sources([1], 9)  # type: ignore[list-item]
    assert old.unit_vectors(h.VECTOR).tolist() == [[1, 0]]

    for number in range(2, 9):
        tail.add(h.file(number, FileKind.ROWS, 1, number), h.batch(h.rows([number], vector=(0, number))), {})
        (new,) = tail.sources(range(1, number + 1), 9)  # type: ignore[arg-type]
        assert new.unit_vectors(h.VECTOR).tolist() == [[1, 0]] + [[0, 1]] * (number - 1)
    assert old.unit_vectors(h.VECTOR).tolist() == [[1, 0]]


def test_dropped_files_are_forgotten_and_empty_blocks_freed() -> None:
    """What is left answers as before; a tail without files takes no memory."""
    tail = tail_of((1, [1]), (2, [2]), (3, [3]))

    tail.drop([2, 99])  # type: ignore[list-item]
    assert h.alive(tail.sources([1, 3], 9)) == [1, 3]  # type: ignore[list-item]
    assert 2 not in tail  # type: ignore[operator]

    tail.drop([1, 3])  # type: ignore[list-item]
    assert tail.bytes == 0
    assert list(tail.files) == []


def test_a_full_block_is_followed_by_another() -> None:
    """Rows beyond a block's bytes go to a new one; a search over both sees both."""
    many = tail_module.BLOCK_BYTES // (4 * h.DIM)
    tail = tail_of((1, list(range(many))), (2, [many]))

    sources = tail.sources([1, 2], 9)  # type: ignore[list-item]

    assert [source.rows for source in sources] == [many, 1]


def test_keys_are_found_in_the_files_asked_for_only() -> None:
    """A key may lie in several files of a block, and be asked for in one."""
    tail = tail_of((1, [7, 8]), (2, [7]))

    (source,) = tail.sources([2], 9)  # type: ignore[list-item]

    assert source.find(h.batch(h.rows([7, 9])).column(0)).tolist() == [2]


def test_a_growing_array_keeps_what_was_handed_out() -> None:
    """Views stay valid and unchanged while it grows."""
    growing = Growing(np.float32, 2)
    growing.extend(np.ones((3, 2), np.float32))
    view = growing.view(3)

    for _ in range(10):
        growing.extend(np.zeros((5, 2), np.float32))

    assert view.tolist() == [[1, 1]] * 3
    assert growing.view(53)[:3].tolist() == [[1, 1]] * 3


def test_the_vectors_of_a_large_file_stay_where_they_lie() -> None:
    """A large file is a block of its own without a copy; small ones before and after it share another."""
    key = Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True)
    vector = Field(id=FieldId(101), name="vector", type=DataType.FLOAT_VECTOR, dim=1024)
    tail = Tail(Schema(fields=(key, vector)))
    large = OWN_BLOCK_BYTES // 4096
    batches = {}
    for number, count in {1: 2, 2: large, 3: 1}.items():
        values = pa.array(np.zeros(1024 * count, np.float32))
        columns = [pa.array(range(count)), pa.FixedSizeListArray.from_arrays(values, 1024)]
        batches[number] = pa.RecordBatch.from_arrays(columns, names=["100", "101"])
        tail.add(h.file(number, FileKind.ROWS, count, number), batches[number], {})

    small, own = tail.sources([FileId(1), FileId(2), FileId(3)], 9)

    assert (small.rows, own.rows) == (3, large)
    assert np.shares_memory(own.vectors(vector.id), batches[2].column("101").flatten().to_numpy())
