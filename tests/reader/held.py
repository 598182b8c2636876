"""Files as a reader holds them, made by hand: fresh rows, tombstones, segments; and what must be found in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import (
    VERSION_COLUMN,
    Collection,
    CollectionId,
    DataType,
    Field,
    FieldId,
    File,
    FileId,
    FileKind,
    Part,
    Partition,
    PartitionId,
    Schema,
    Version,
)
from mishards.reader.hosted import Hosted
from mishards.reader.segments import HeldSegment, SegmentColumns
from mishards.segment.fresh import Tombstones, encode_rows, encode_tombstones, tombstones_of

DIM = 2
PK, NUMBER, VECTOR = FieldId(100), FieldId(101), FieldId(102)
PARTITION = PartitionId(5)

Key = int | str


def schema(text: bool = False) -> Schema:
    return Schema(
        fields=(
            Field(id=PK, name="id", type=DataType.VARCHAR if text else DataType.INT64, primary_key=True, max_length=64),
            Field(id=NUMBER, name="number", type=DataType.INT64, nullable=True),
            Field(id=VECTOR, name="vector", type=DataType.FLOAT_VECTOR, dim=DIM),
        )
    )


def collection(text: bool = False, **changes: Any) -> Collection:
    values = {"partitions": (Partition(PARTITION, "_default", 1),), "loaded": True, "name": "books", **changes}
    return Collection(id=CollectionId(1), schema=schema(text), created_ts=1, updated_ts=1, **values)


@dataclass(frozen=True)
class Row:
    key: Key
    number: int | None
    vector: tuple[float, float]


def rows(keys: Iterable[Key], number: int | None = 0, vector: tuple[float, float] = (1.0, 0.0)) -> list[Row]:
    return [Row(key, number, vector) for key in keys]


def batch(content: Sequence[Row]) -> pa.RecordBatch:
    """Sorted by key, as the writer commits rows."""
    content = sorted(content, key=lambda row: row.key)
    text = bool(content) and isinstance(content[0].key, str)
    vectors = np.array([row.vector for row in content], np.float32).reshape(-1)
    columns = [
        pa.array([row.key for row in content], pa.string() if text else pa.int64()),
        pa.array([row.number for row in content], pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIM),
    ]
    return pa.RecordBatch.from_arrays(columns, names=[str(PK), str(NUMBER), str(VECTOR)])


def file(id: int, kind: FileKind, count: int, added: int, **changes: Any) -> File:
    fresh = kind is not FileKind.SEGMENT
    values: dict[str, Any] = {
        "partition_id": PARTITION if kind is not FileKind.TOMBSTONES else PartitionId(0),
        "segment_id": FileId(0 if fresh else id),
        "bytes": 100,
        "horizon": Version(added if kind is FileKind.ROWS else 0),
        "parts": (Part(kind="fresh" if fresh else "scalars", path="" if fresh else f"s/{id}", bytes=100),),
        "inline": fresh,
        "shard": 0,
        **changes,
    }
    return File(id=FileId(id), collection_id=CollectionId(1), kind=kind, rows=count, added=Version(added), **values)


def kills(keys: Sequence[Key], below: int = 0, partition: int = 0) -> Tombstones:
    return tombstones_of(pa.array(list(keys)), below, partition)


def segment(
    record: File,
    content: Sequence[tuple[Row, int]],
    dead: Sequence[Key] = (),
    indexes: Any = None,
    unit_bytes: int = 0,
) -> HeldSegment:
    """`content`: rows with their versions. `dead`: keys that the delete bitmap masks."""
    content = sorted(content, key=lambda each: each[0].key)
    table = pa.Table.from_batches([batch([row for row, _ in content])])
    vectors = np.array([row.vector for row, _ in content], np.float32)
    scalars = table.drop_columns([str(VECTOR)]).append_column(
        VERSION_COLUMN, pa.array([version for _, version in content], pa.int64())
    )
    text = isinstance(content[0][0].key, str)
    columns = SegmentColumns(scalars, {VECTOR: vectors}, schema(text))
    mask = np.array([row.key in dead for row, _ in content]) if dead else None
    return HeldSegment(record, columns, mask, indexes or {}, unit_bytes)


class FakeViews:
    """Views of pins: those in `stored` are known once they are loaded."""

    def __init__(self, known: dict[CollectionId, Manifest]) -> None:
        self._known = known
        self.stored: dict[int, Manifest] = {}

    async def load(self, id: CollectionId) -> None:
        if id in self.stored:
            self._known[id] = self.stored[id]


class FakeMirror:
    """The part of the mirror that readers use. `news` is what a refresh brings."""

    def __init__(self, *manifests: Manifest) -> None:
        self._manifests = {manifest.collection.id: manifest for manifest in manifests}
        self.inline: dict[int, bytes] = {}
        self.refreshed = 0
        self.news: Callable[[], None] = lambda: None
        self.chain: dict[str, int] = {}  # versions of commits in the metadata service, by uuid
        self.failure: MishardsError | None = None
        self.listeners: list[Callable[[CollectionId], None]] = []
        self.pinned = FakeViews(self._manifests)

    def get(self, collection_id: CollectionId) -> Manifest | None:
        return self._manifests.get(collection_id)

    def manifests(self) -> list[Manifest]:
        return list(self._manifests.values())

    def put(self, manifest: Manifest) -> None:
        self._manifests[manifest.collection.id] = manifest

    def forget(self, collection_id: int) -> None:
        del self._manifests[CollectionId(collection_id)]

    def on_change(self, callback: Callable[[CollectionId], None]) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def changed(self) -> None:
        for listener in self.listeners:
            listener(CollectionId(1))

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.failure is not None:
            raise self.failure
        self.news()

    @property
    def lost(self) -> bool:
        return self.failure is not None

    async def verify(self, collection_id: CollectionId, version: int, head: str) -> None:
        if self.failure is None:
            self._manifests[collection_id].learn(version, head, there=self.chain.get(head) == version)

    def stored(self, ids: Iterable[FileId]) -> dict[FileId, bytes]:
        return {}

    async def payloads(self, files: Sequence[File]) -> dict[FileId, bytes]:
        for each in files:
            if each.id not in self.inline:
                raise MishardsError(Kind.GONE, f"file {each.id} is not in the metadata service any more")
        return {each.id: self.inline[each.id] for each in files}


class FakeLoader:
    """Segments by file id; those that are missing fail with `failure`."""

    def __init__(self) -> None:
        self.segments: dict[int, HeldSegment] = {}
        self.failure = MishardsError(Kind.STORAGE_UNAVAILABLE, "storage is down")
        self.loads: list[int] = []

    async def load(self, record: File, _: Collection) -> HeldSegment:
        self.loads.append(record.id)
        if record.id not in self.segments:
            raise MishardsError(self.failure.kind, self.failure.message)
        return self.segments[record.id]


@dataclass
class House:
    """One collection's chain, written by hand, and readers that hold it."""

    manifest: Manifest = field(default_factory=lambda: Manifest(collection()))
    loader: FakeLoader = field(default_factory=FakeLoader)
    storage: Any = None

    def __post_init__(self) -> None:
        self.mirror = FakeMirror(self.manifest)
        self._last_id = 10

    def hosted(self) -> Hosted:
        mirror: Any = self.mirror
        loader: Any = self.loader
        return Hosted(self.manifest, mirror, self.storage, loader)

    def write(self, content: Sequence[Row]) -> File:
        """A commit of fresh rows."""
        return self.add(FileKind.ROWS, len(content), encode_rows(batch(content)))

    def delete(self, keys: Sequence[Key], below: int = 0) -> File:
        """A commit of tombstones."""
        return self.add(FileKind.TOMBSTONES, len(keys), encode_tombstones(kills(keys, below)))

    def flush(self, content: Sequence[tuple[Row, int]], **changes: Any) -> File:
        """A layout commit of one segment; its inputs stay, since nobody asks for them twice."""
        record = self.add(FileKind.SEGMENT, len(content), None, **changes)
        self.loader.segments[record.id] = segment(record, content)
        return record

    def add(self, kind: FileKind, count: int, payload: bytes | None, **changes: Any) -> File:
        self._last_id += 1
        version = self.manifest.version + 1
        record = file(self._last_id, kind, count, version, **changes)
        if payload is not None:
            self.mirror.inline[record.id] = payload
        self.manifest.put(record)
        self.manifest.version = Version(version)
        if kind is FileKind.SEGMENT:
            self.manifest.layout = Version(version)
        return record


def alive(sources: Iterable[Any]) -> list[Key]:
    """The keys that live in the sources, sorted."""
    found: list[Key] = []
    for source in sources:
        mask = np.ones(source.rows, bool) if source.alive is None else source.alive
        found += source.keys_at(np.flatnonzero(mask)).to_pylist()
    return sorted(found)


def numbers_of(table: pa.RecordBatch | pa.Table) -> Mapping[str, list[Any]]:
    return {name: table.column(name).to_pylist() for name in table.schema.names}
