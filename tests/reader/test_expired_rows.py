"""Expired rows are in no answer, and every part of a search agrees on which they are."""

from __future__ import annotations

import held as h
import pyarrow as pa
import pytest
from msgspec.structs import replace

from mishards.model import TS_COLUMN, VERSION_COLUMN, FileKind
from mishards.reader.segments import HeldSegment, SegmentColumns
from mishards.reader.tail import Tail


def segment(timestamps: dict[int, int], known: bool = True) -> HeldSegment:
    """Rows by key, each with the timestamp of its commit; `known`: whether the segment says so."""
    count = len(timestamps)
    rows = pa.Table.from_batches([h.batch(h.rows(sorted(timestamps)))])
    table = rows.append_column(VERSION_COLUMN, pa.array([1] * count, pa.int64()))
    if known:
        table = table.append_column(TS_COLUMN, pa.array([timestamps[key] for key in sorted(timestamps)], pa.int64()))
    oldest = min(timestamps.values()) if known else 0
    record = replace(h.file(1, FileKind.SEGMENT, count, 1), oldest_ts=oldest)
    held = HeldSegment(record, SegmentColumns(table, {}, h.schema()), None, {})
    held.apply(h.kills([2]), 2)
    return held


@pytest.mark.parametrize(
    ("expired_ts", "alive"), [(0, [1, 3, 4]), (9, [1, 3, 4]), (10, [3, 4]), (20, [3, 4]), (30, [4]), (10**9, [])]
)
def test_of_a_segment(expired_ts: int, alive: list[int]) -> None:
    """Up to the cutoff rows are gone, whatever tombstones do besides; the rows that it stands for stay counted."""
    held = segment({1: 10, 2: 20, 3: 30, 4: 40})

    (source,) = sources = [held.source(2, expired_ts)]

    assert h.alive(sources) == alive
    assert source.planned == 4
    assert h.alive([held.source(1)]) == [1, 2, 3, 4]


def test_of_a_segment_without_timestamps() -> None:
    """Rows whose age is not known do not expire."""
    assert h.alive([segment({1: 10, 2: 20}, known=False).source(2, 10**9)]) == [1]


def test_of_fresh_rows() -> None:
    """All rows of a fresh file have the age of its commit."""
    tail = Tail(h.schema())
    for number, keys in ((1, [1, 2]), (2, [3]), (3, [4])):
        record = replace(h.file(number, FileKind.ROWS, len(keys), number), oldest_ts=10 * number, newest_ts=10 * number)
        tail.add(record, h.batch(h.rows(keys)), {})

    sources = tail.sources([1, 2, 3], 9, 20)  # type: ignore[list-item]

    assert h.alive(sources) == [4]
    assert sum(source.planned for source in sources) == 4
    assert h.alive(tail.sources([1, 2, 3], 9, 9)) == [1, 2, 3, 4]  # type: ignore[list-item]
    assert h.alive(tail.sources([1, 2, 3], 9, 30)) == []  # type: ignore[list-item]
