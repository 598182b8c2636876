"""The tail: rows committed but not yet in a segment, searchable in memory (P9).

Files are gathered in blocks of bounded size, so that a search runs over a few matrices instead of thousands of small
files and dropping flushed files frees whole blocks. Inside a block rows lie in order of arrival, by file. Of a large
file nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.index.exact import normalised
from mishards.model import Field, File, FileId, Schema
from mishards.ports import Matrix, VectorIndex
from mishards.reader.deaths import NEVER
from mishards.reader.interims import Interims
from mishards.reader.source import Mask, MaskCache, Source
from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex
from mishards.segment.kill import killed

BLOCK_BYTES = 8 << 20  # of vectors
OWN_BLOCK_BYTES = 2 << 20  # of vectors of one file: it is a block of its own, whose vectors stay where they lie
GROWN_BYTES_MAX = 1 << 20  # copied at once while an array grows; then it gets what a block may need


@dataclass(frozen=True, slots=True)
class Chunk:
    """One ROWS file inside a block."""

    file: File
    start: int
    keys: KeyIndex

    @property
    def stop(self) -> int:
        return self.start + self.file.rows


class Tail:
    """The fresh rows of one shard that this reader holds."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._blocks: list[Block] = []
        self._open: Block | None = None  # the one that small files go to
        self._homes: dict[FileId, Block] = {}

    @property
    def files(self) -> Iterable[FileId]:
        return self._homes.keys()

    @property
    def bytes(self) -> int:
        return sum(block.bytes for block in self._blocks)

    def __contains__(self, file_id: FileId) -> bool:
        return file_id in self._homes

    def add(self, file: File, rows: pa.RecordBatch, tombstones: Mapping[int, Tombstones]) -> None:
        """Append a file's rows (sorted by primary key); `tombstones` by version are those applied to the shard."""
        block = self._block_for(rows)
        chunk = block.add(file, rows)
        self._homes[file.id] = block
        for version, batch in tombstones.items():
            if version > file.added:
                block.kill(chunk, batch, version)

    def _block_for(self, rows: pa.RecordBatch) -> Block:
        """An empty block for a large file, else the last one of small files that has room."""
        row_bytes = sum(4 * field.dim for field in self._schema.vectors)
        own = rows.num_rows * row_bytes >= OWN_BLOCK_BYTES
        if not own and self._open is not None and self._open.rows * row_bytes < BLOCK_BYTES:
            return self._open
        block = Block(self._schema)
        self._blocks.append(block)
        if not own:
            self._open = block
        return block

    def apply(self, tombstones: Tombstones, version: int) -> None:
        """A tombstone batch became visible at `version`."""
        for kill in self.kills(tombstones, version):
            kill()

    def kills(self, tombstones: Tombstones, version: int) -> list[Callable[[], None]]:
        """The same in steps, one for each file that may hold such keys. Files may come and go between them."""
        return [
            partial(block.kill, chunk, tombstones, version)
            for block in self._blocks
            for chunk in block.chunks.values()
            if chunk.keys.may_hold(*tombstones.key_range)
        ]

    def drop(self, files: Iterable[FileId]) -> None:
        """Forget files; a block goes when its last one does."""
        for file_id in files:
            block = self._homes.pop(file_id, None)
            if block is not None:
                del block.chunks[file_id]
        self._blocks = [block for block in self._blocks if block.chunks]
        if self._open not in self._blocks:
            self._open = None

    def start_of(self, file_id: FileId) -> int:
        """Where the file's rows begin in its source."""
        return self._homes[file_id].chunks[file_id].start

    def sources(self, files: Iterable[FileId], version: int, expired_ts: int = 0) -> list[Source]:
        """The rows of exactly these files, alive at `version` and not expired."""
        wanted: dict[int, tuple[Block, list[Chunk]]] = {}
        for file_id in files:
            block = self._homes[file_id]
            wanted.setdefault(id(block), (block, []))[1].append(block.chunks[file_id])
        return [block.source(chunks, version, expired_ts) for block, chunks in wanted.values()]


class Block:
    """Some files' rows, appended. Arrays grow by doubling; views handed out earlier keep their old, valid memory."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._vectors: dict[int, Growing] = {field.id: Growing(np.float32, field.dim) for field in schema.vectors}
        self._units: dict[int, Growing] = {}
        self._died = Growing(np.int64)
        self._files = Growing(np.int64)
        self._starts = Growing(np.int64)  # where each row's file begins
        self._masks = MaskCache()
        self._interims = Interims()
        self._table: pa.Table | None = None
        self.chunks: dict[FileId, Chunk] = {}
        self.rows = 0

    @property
    def bytes(self) -> int:
        columns = [*self._vectors.values(), *self._units.copy().values()]  # searches add to it on other threads
        return sum(column.bytes for column in columns) + self._masks.bytes + self._interims.bytes

    def add(self, file: File, rows: pa.RecordBatch) -> Chunk:
        chunk = Chunk(file, self.rows, KeyIndex(rows.column(self._schema.primary.column)))
        for field in self._schema.vectors:
            self._vectors[field.id].extend(vectors_of(rows, field))
        self._batches.append(rows.select([field.column for field in self._schema.scalars]))
        self._died.extend(np.full(file.rows, NEVER, np.int64))
        self._files.extend(np.full(file.rows, file.id, np.int64))
        self._starts.extend(np.full(file.rows, self.rows, np.int64))
        self.chunks[file.id] = chunk
        self.rows += file.rows
        self._table = None
        return chunk

    def kill(self, chunk: Chunk, tombstones: Tombstones, version: int) -> None:
        """Apply tombstones visible at `version` to one file's rows."""
        versions = np.full(chunk.file.rows, chunk.file.added, np.int64)
        positions = killed(chunk.keys, versions, chunk.file.partition_id, tombstones, version) + chunk.start
        died = self._died.view(self.rows)
        died[positions] = np.minimum(died[positions], version)

    def source(self, chunks: list[Chunk], version: int, expired_ts: int) -> Source:
        rows = self.rows
        if self._table is None:
            self._table = pa.Table.from_batches(self._batches)
        table, files, starts = self._table, self._files.view(rows), self._starts.view(rows)
        chunks = sorted(chunks, key=lambda chunk: chunk.start)
        return Source(
            rows=rows,
            planned=sum(chunk.file.rows for chunk in chunks),
            alive=self._alive([chunk for chunk in chunks if not 0 < chunk.file.newest_ts <= expired_ts], version),
            place_of=lambda positions: (files[positions], positions - starts[positions]),
            keys=table.column(self._schema.primary.column),
            table=table,
            vectors=lambda field_id: self._vectors[field_id].view(rows),
            unit_vectors=lambda field_id: self._unit(field_id, rows),
            index=_no_index,
            ordered=len(self._batches) == 1,
            find=lambda keys: _find(chunks, keys),
            masks=self._masks,
            interims=self._interims,
        )

    def _alive(self, chunks: list[Chunk], version: int) -> Mask | None:
        died = self._died.view(self.rows)
        alive = died > version
        if len(chunks) == len(self._batches):
            return None if alive.all() else alive
        asked = np.zeros(self.rows, np.bool_)
        for chunk in chunks:
            asked[chunk.start : chunk.stop] = True
        return asked & alive

    def _unit(self, field_id: int, rows: int) -> Matrix:
        """Normalised copies, extended when first asked for. Called on any thread; a race only repeats work."""
        raw = self._vectors[field_id].view(rows)
        known = self._units.get(field_id)
        units = Growing(np.float32, raw.shape[1]) if known is None else known.copy()
        if units.length < rows:
            units.extend(normalised(raw[units.length :]))
            self._units[field_id] = units
        return units.view(rows)


class Growing:
    """An array that grows at its end: (length,) or (length, width)."""

    def __init__(self, dtype: type[np.generic], width: int = 0) -> None:
        self._array: NDArray[Any] = np.zeros((0, width) if width else 0, dtype)
        self.length = 0

    @property
    def bytes(self) -> int:
        return self._array.nbytes

    def extend(self, values: NDArray[Any]) -> None:
        if self.length == 0 and values.nbytes >= OWN_BLOCK_BYTES:  # the only ones: nothing is added to a large file
            self._array, self.length = values, len(values)
            return
        end = self.length + len(values)
        if end > len(self._array):
            grown = np.empty((max(end, self._room(values)), *self._array.shape[1:]), self._array.dtype)
            grown[: self.length] = self._array[: self.length]
            self._array = grown
        self._array[self.length : end] = values
        self.length = end

    def _room(self, values: NDArray[Any]) -> int:
        """Rows to take memory for: twice what there is, from a size on all that a block may need, to copy little."""
        row_bytes = max(values.nbytes // max(len(values), 1), 1)
        if self.length * row_bytes < GROWN_BYTES_MAX // 2:
            return 2 * self.length
        return (BLOCK_BYTES + OWN_BLOCK_BYTES) // row_bytes

    def view(self, length: int) -> NDArray[Any]:
        return self._array[:length]

    def copy(self) -> Growing:
        """Another one over the same memory, to be extended and swapped in."""
        other = Growing.__new__(Growing)
        other._array, other.length = self._array, self.length
        return other


def vectors_of(rows: pa.RecordBatch | pa.Table, field: Field) -> Matrix:
    """A vector column as (rows, dim) float32, without a copy where Arrow allows."""
    column = rows.column(field.column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    flat: Matrix = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), field.dim)


def _find(chunks: list[Chunk], keys: pa.Array) -> NDArray[np.int64]:
    found = []
    for chunk in chunks:
        positions = chunk.keys.find(keys)
        found.append(positions[positions >= 0] + chunk.start)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _no_index(index_id: int) -> VectorIndex | None:
    return None
