"""One part of a query or count over its sources: the live rows that pass a filter, in primary key order (P8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.model import Schema
from mishards.reader.columns import FILE_COLUMN, POSITION_COLUMN, take_rows
from mishards.reader.evaluate import Condition, selected
from mishards.reader.source import Source


def count(sources: Sequence[Source], condition: Condition) -> int:
    """How many live rows pass."""
    total = 0
    for source in sources:
        mask = selected(source, condition)
        total += source.rows if mask is None else int(np.count_nonzero(mask))
    return total


def scan(
    sources: Sequence[Source],
    condition: Condition,
    schema: Schema,
    output: Sequence[int],
    limit: int,
    after_key: int | str | None,
    with_places: bool,
) -> pa.RecordBatch:
    """The first `limit` rows (-1: all) by primary key whose key is greater than `after_key`, all files together."""
    numbers, positions, keys = [], [], []
    for number, source in enumerate(sources):
        found = _first(source, condition, limit, after_key)
        numbers.append(np.full(len(found), number, np.int32))
        positions.append(found)
        keys.append(source.keys_at(found))
    if not sources:
        return pa.RecordBatch.from_arrays([], names=[])
    all_numbers, all_positions = np.concatenate(numbers), np.concatenate(positions)
    order = pc.sort_indices(pa.concat_arrays(keys)).to_numpy()
    order = order if limit < 0 else order[:limit]
    all_numbers, all_positions = all_numbers[order], all_positions[order]
    rows = take_rows(sources, all_numbers, all_positions, schema, output)
    return _add_places(rows, sources, all_numbers, all_positions) if with_places else rows


def _first(source: Source, condition: Condition, limit: int, after_key: int | str | None) -> NDArray[np.int64]:
    """Positions of one source's first rows by key; of an unordered source simply all that pass."""
    mask = selected(source, condition)
    found = np.arange(source.rows, dtype=np.int64) if mask is None else np.flatnonzero(mask)
    if after_key is not None:
        found = found[pc.greater(source.keys_at(found), after_key).to_numpy(zero_copy_only=False)]
    return found[:limit] if limit >= 0 and source.ordered else found


def _add_places(
    rows: pa.RecordBatch, sources: Sequence[Source], numbers: NDArray[np.int32], positions: NDArray[np.int64]
) -> pa.RecordBatch:
    files, places = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
    for number, source in enumerate(sources):
        mine = numbers == number
        files[mine], places[mine] = source.place_of(positions[mine])
    arrays = [*rows.columns, pa.array(files), pa.array(places)]
    return pa.RecordBatch.from_arrays(arrays, names=[*rows.schema.names, FILE_COLUMN, POSITION_COLUMN])
