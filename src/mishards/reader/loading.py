"""Loading one segment record: local copies, mapped columns, its delete bitmap, the indexes of its definitions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from mishards.model import Collection, File, FileId, Part
from mishards.ports import IndexKind, Matrix, VectorIndex
from mishards.reader.cache import DiskCache
from mishards.reader.pools import in_pool
from mishards.reader.segments import HeldSegment, SegmentColumns, unit_bytes
from mishards.segment.read import read_deletes

T = TypeVar("T")


class Loader:
    """Loads at most `loads_max` segments at once; two records of one segment share its columns and indexes."""

    def __init__(
        self, cache: DiskCache, pool: Executor, index_kind: Callable[[str], IndexKind], loads_max: int
    ) -> None:
        self._cache = cache
        self._pool = pool
        self._index_kind = index_kind
        self._slots = asyncio.Semaphore(loads_max)
        self._columns: weakref.WeakValueDictionary[FileId, SegmentColumns] = weakref.WeakValueDictionary()
        self._indexes: weakref.WeakValueDictionary[str, VectorIndex] = weakref.WeakValueDictionary()

    async def load(self, file: File, collection: Collection) -> HeldSegment:
        """The segment without deaths newer than its horizon, the caller's own."""
        async with self._slots, self._cache.pinning(file.parts):  # nothing is dropped before it is mapped
            columns = self._columns.get(file.segment_id) or await self._open_columns(file, collection)
            deletes = file.part("deletes")
            dead = None
            if deletes is not None:
                dead = await self._run(read_deletes, await self._cache.get(deletes), file.rows)
            indexes: dict[int, VectorIndex] = {}
            for definition in collection.indexes:
                part = file.part("index", definition.field_id, definition.id)
                if part is not None:
                    vectors = columns.vectors(definition.field_id)
                    index = await self._open_index(part, definition.type, definition.metric, vectors)
                    indexes[definition.id] = index
            return HeldSegment(file, columns, dead, indexes, unit_bytes(file, collection))

    async def _open_columns(self, file: File, collection: Collection) -> SegmentColumns:
        scalars: Path | None = None
        vectors: dict[int, Path] = {}
        for part in file.parts:
            if part.kind == "scalars":
                scalars = await self._cache.get(part)
            elif part.kind == "vectors":
                vectors[part.field_id] = await self._cache.get(part)
        assert scalars is not None, f"segment {file.id} has no scalars part"
        columns = await self._run(SegmentColumns.open, scalars, vectors, file.rows, collection.schema)
        self._columns[file.segment_id] = columns
        return columns

    async def _open_index(self, part: Part, kind: str, metric: str, vectors: Matrix) -> VectorIndex:
        index = self._indexes.get(part.path)
        if index is None:
            index = await self._run(self._index_kind(kind).load, await self._cache.get(part), metric, vectors)
            self._indexes[part.path] = index
        return index

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await in_pool(self._pool, function, *arguments)
