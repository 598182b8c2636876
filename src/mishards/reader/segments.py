"""Segments held by a reader: mapped columns, loaded indexes, and which rows died when.

The columns are shared by all records of one segment (attaching an index or a delete bitmap makes a new record); deaths
belong to the record, because its delete bitmap is part of its meaning.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.index.exact import normalised
from mishards.model import TS_COLUMN, VERSION_COLUMN, Collection, File, Schema
from mishards.ports import Matrix, VectorIndex
from mishards.reader.deaths import Deaths
from mishards.reader.interims import Interims
from mishards.reader.source import Mask, MaskCache, Source
from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex
from mishards.segment.kill import killed
from mishards.segment.read import open_scalars, open_vectors
from mishards.segment.rewrite import expired


class SegmentColumns:
    """The mapped columns of one segment, in primary key order."""

    def __init__(self, scalars: pa.Table, vectors: Mapping[int, Matrix], schema: Schema) -> None:
        self.table = scalars
        self.rows = scalars.num_rows
        self.keys = _one_chunk(scalars.column(schema.primary.column))
        self.key_index = KeyIndex(self.keys)
        self.versions: NDArray[np.int64] = _one_chunk(scalars.column(VERSION_COLUMN)).to_numpy()
        self.masks = MaskCache()
        self._ts: NDArray[np.int64] | None = None  # None: not known of any row
        if TS_COLUMN in scalars.column_names:
            self._ts = _one_chunk(scalars.column(TS_COLUMN)).to_numpy()
        self._kept: tuple[int, Mask | None] = (0, None)  # by the newest `expired_ts` asked for
        self._vectors = dict(vectors)
        self._units: weakref.WeakValueDictionary[int, Matrix] = weakref.WeakValueDictionary()

    @classmethod
    def open(cls, scalars: Path, vectors: Mapping[int, Path], rows: int, schema: Schema) -> SegmentColumns:
        """Map verified local files."""
        matrices: dict[int, Matrix] = {
            field.id: open_vectors(vectors[field.id], rows, field.dim)
            for field in schema.vectors
            if field.id in vectors
        }
        return cls(open_scalars(scalars), matrices, schema)

    def kept(self, expired_ts: int) -> Mask | None:
        """Which rows (rows,) are not expired; None when none is. Not to be written to."""
        if self._ts is None or not expired_ts:
            return None
        at, kept = self._kept
        if at != expired_ts:
            gone = expired(self._ts, expired_ts)
            kept = ~gone if gone.any() else None
            self._kept = (expired_ts, kept)
        return kept

    def vectors(self, field_id: int) -> Matrix:
        return self._vectors[field_id]

    def unit_vectors(self, field_id: int) -> Matrix:
        """Normalised copies, made once for all records that hold on to them."""
        unit = self._units.get(field_id)
        if unit is None:
            unit = self._units[field_id] = normalised(self._vectors[field_id])
        return unit


def unit_bytes(file: File, collection: Collection) -> int:
    """The memory that unit vectors will take: searches by cosine make them of fields that have no index here."""
    return sum(
        part.bytes
        for index in collection.indexes
        if index.metric == "COSINE" and file.part("index", index.field_id, index.id) is None
        if (part := file.part("vectors", index.field_id)) is not None
    )


class HeldSegment:
    """One SEGMENT record, ready to be searched at any version from its `added` on."""

    def __init__(
        self,
        file: File,
        columns: SegmentColumns,
        dead: NDArray[np.bool_] | None,
        indexes: Mapping[int, VectorIndex],
        unit_bytes: int = 0,
    ) -> None:
        self.file = file
        self.columns = columns
        self.used_s = 0.0  # monotonic; for dropping the least recently used
        self._indexes = dict(indexes)
        self._unit_bytes = unit_bytes
        self._units: dict[int, Matrix] = {}  # kept here, so that they go when a record with an index takes over
        self._interims = Interims()
        self._deaths = Deaths(columns.rows, dead)

    @property
    def bytes(self) -> int:
        """What it holds in memory, unit vectors included before they are made."""
        units = sum(unit.nbytes for unit in list(self._units.values()))  # searches add to it on other threads
        indexes = sum(index.bytes for index in self._indexes.values())
        return max(units, self._unit_bytes) + indexes + self._interims.bytes + self.columns.masks.bytes

    def apply(self, tombstones: Tombstones, version: int) -> None:
        """A tombstone batch became visible at `version`; those up to the horizon are applied already (P5)."""
        if version <= self.file.horizon:
            return
        columns = self.columns
        positions = killed(columns.key_index, columns.versions, self.file.partition_id, tombstones, version)
        self._deaths.kill(positions, version)

    def source(self, version: int, expired_ts: int = 0) -> Source:
        columns, file_id = self.columns, self.file.id
        kept = columns.kept(expired_ts) if self.file.oldest_ts <= expired_ts else None
        alive = self._deaths.alive(version)
        return Source(
            rows=columns.rows,
            planned=self.file.rows,
            alive=kept if alive is None else alive if kept is None else alive & kept,
            place_of=lambda positions: (np.full(len(positions), file_id, np.int64), positions),
            keys=columns.keys,
            table=columns.table,
            vectors=columns.vectors,
            unit_vectors=self._unit_vectors,
            index=self._indexes.get,
            ordered=True,
            find=lambda keys: _present(columns.key_index.find(keys)),
            masks=columns.masks,
            interims=self._interims,
        )

    def _unit_vectors(self, field_id: int) -> Matrix:
        """Made when first searched exactly by cosine. Called on any thread; a race only repeats work."""
        unit = self._units.get(field_id)
        if unit is None:
            unit = self._units[field_id] = self.columns.unit_vectors(field_id)
        return unit


def _present(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return positions[positions >= 0]


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
