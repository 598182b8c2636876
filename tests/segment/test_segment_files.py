"""A segment written and opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_rows import DIM, NAME, PK, VECTOR, schema, table

from mishards.model import VERSION_COLUMN, DataType
from mishards.segment.footer import verify
from mishards.segment.read import open_rows, open_scalars, open_vectors, read_deletes
from mishards.segment.write import vectors_of, write_deletes, write_segment


def test_a_segment_is_sorted_and_complete(tmp_path: Path) -> None:
    """Rows in any order are written in key order, scalars and vectors alike, and every file verifies."""
    rows = table([30, 10, 20], [7, 5, 6], ["c", None, "b"])

    files = write_segment(rows, schema(), tmp_path, 7, 1)

    assert (files.rows, files.pk_min, files.pk_max) == (3, 10, 30)
    assert [(part.kind, part.field_id) for part in files.parts] == [("scalars", 0), ("vectors", 102)]
    for part in files.parts:
        footer = verify(part.path)
        assert (footer.kind, footer.rows, footer.collection_id, footer.shard) == (part.kind, 3, 7, 1)
        assert part.bytes == part.path.stat().st_size
    scalars = open_scalars(files.parts[0].path)
    assert scalars.column_names == [PK, NAME, VERSION_COLUMN]
    assert scalars.to_pydict() == {PK: [10, 20, 30], NAME: [None, "b", "c"], VERSION_COLUMN: [5, 6, 7]}
    vectors = open_vectors(files.parts[1].path, 3, DIM)
    assert vectors.tolist() == [[1, 1.5, -1], [2, 2.5, -2], [0, 0.5, 0]]
    assert not vectors.flags.writeable


def test_rows_in_order_are_written_as_they_lie(tmp_path: Path) -> None:
    """A sorted table of several chunks, a slice among them, keeps each vector with its key."""
    from pyarrow import concat_tables

    rows = concat_tables([table(["a", "b", "c"], [1, 1, 1], "xyz").slice(1), table(["d"], [2], "w")])

    files = write_segment(rows, schema(DataType.VARCHAR), tmp_path, 7, 1)

    assert (files.pk_min, files.pk_max) == ("b", "d")
    assert open_vectors(files.parts[1].path, 3, DIM).tolist() == [[1, 1.5, -1], [2, 2.5, -2], [0, 0.5, 0]]


def test_scalars_are_mapped_not_read(tmp_path: Path) -> None:
    """Opened columns are one chunk each and take no memory of Arrow's."""
    from pyarrow import total_allocated_bytes

    keys = range(10_000)
    files = write_segment(table(keys, keys, ["x"] * 10_000), schema(), tmp_path, 7, 1)
    before = total_allocated_bytes()

    scalars = open_scalars(files.parts[0].path)

    assert total_allocated_bytes() - before < 10_000
    assert all(column.num_chunks == 1 for column in scalars.columns)


def test_a_segment_opens_as_the_table_it_was(tmp_path: Path) -> None:
    """For rewriting, scalars and vectors come together again."""
    rows = table([10, 20], [5, 6], ["a", "b"])
    files = write_segment(rows, schema(), tmp_path, 7, 1)

    back = open_rows(files.parts[0].path, [(schema().vectors[0], files.parts[1].path)])

    assert back.select(rows.column_names).equals(rows)
    assert vectors_of(back.column(VECTOR).chunk(0), DIM).tolist() == [[0, 0.5, 0], [1, 1.5, -1]]


@pytest.mark.parametrize("rows", [1, 8, 13])
def test_dead_positions_come_back(tmp_path: Path, rows: int) -> None:
    """A delete bitmap of any length is read as it was written."""
    dead = np.arange(rows) % 3 == 0

    size = write_deletes(dead, tmp_path / "deletes", 7, 1)

    assert verify(tmp_path / "deletes").rows == rows
    assert size == (tmp_path / "deletes").stat().st_size
    assert np.array_equal(read_deletes(tmp_path / "deletes", rows), dead)
