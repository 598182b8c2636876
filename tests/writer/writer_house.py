"""A writer on a real SQLite store and real files, and an independent reading of what it left there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mishards.clock import FakeClock
from mishards.config import WriterSettings
from mishards.errors import MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.metadata.store import open_store
from mishards.model import (
    VERSION_COLUMN,
    Collection,
    CollectionId,
    DataType,
    Field,
    FieldId,
    File,
    FileKind,
    NodeId,
    Schema,
)
from mishards.ports import MetadataStore
from mishards.segment.fresh import decode_rows, decode_tombstones, encode_rows, encode_tombstones, tombstones_of
from mishards.segment.read import open_scalars, open_vectors
from mishards.storage.file import FileStorage, open_storage
from mishards.telemetry.metrics import Metric
from mishards.wire import definitions as d
from mishards.wire.messages import FlushReply, FlushRequest, Notice, ShardWrite, WriteReply, WriteRequest
from mishards.writer.node import WriterNode
from mishards.writer.others import Others
from mishards.writer.shard import Shard

DIM = 2
PK, NAME, VECTOR = "100", "101", "102"
SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="name", type=DataType.VARCHAR, nullable=True, max_length=64),
        Field(id=FieldId(102), name="vector", type=DataType.FLOAT_VECTOR, dim=DIM),
    )
)
# background sealing only where a test asks for it
QUIET = WriterSettings(seal_files=1_000_000, seal_age_s=1e6)


class Faults:
    """A metadata store some of whose calls are replaced: `faults.commit = my_commit`; `inner` is the real one."""

    def __init__(self, inner: MetadataStore) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Rivals:
    """`Others` among whom everybody takes what is free, and all live."""

    def owner(self, shard: Shard, shards: int) -> NodeId | None:
        return None

    def suspect(self, node: NodeId) -> None:
        pass

    async def answers(self, node: NodeId) -> bool:
        return True

    async def reconsider(self) -> None:
        pass

    def settled_s(self) -> float:
        return 0.0

    def leave(self) -> None:
        pass

    def on_change(self, callback: Callable[[], None]) -> None:
        pass


class House:
    """One metadata service, one storage, and writers on them."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.url = f"sqlite:///{folder}/metadata.db"
        self.folder = folder
        self.storage: FileStorage = open_storage((folder / "storage").as_uri())
        self.notices: list[Notice] = []

    @contextlib.asynccontextmanager
    async def writer(
        self, name: str = "w1", settings: WriterSettings = QUIET, others: Others | None = None
    ) -> AsyncIterator[Writer]:
        store = open_store(self.url, self.clock)
        await store.open()
        faults: Any = Faults(store)
        mirror = Mirror(faults, self.clock, poll_s=3600)
        await mirror.start()
        node = WriterNode(
            NodeId(name),
            faults,
            self.storage,
            mirror,
            IdBlocks(faults),
            settings,
            self.clock,
            self.notices.append,
            self.folder / "scratch" / name,
            others or Rivals(),
        )
        await node.start()
        try:
            yield Writer(self, node, mirror, faults)
        finally:
            await node.stop()
            await mirror.stop()
            await store.close()


class Writer:
    """Short words for what tests ask of a writer."""

    def __init__(self, house: House, node: WriterNode, mirror: Mirror, store: Any) -> None:
        self.house = house
        self.node = node
        self.mirror = mirror
        self.store = store

    def told(self, metric: Metric, *labels: str) -> float:
        """What the writer tells of itself; 0: nothing."""
        return sum(each.value for each in self.node.metrics() if (each.metric, each.labels) == (metric, labels))

    async def define(self, definition: d.AnyDefinition) -> d.DefineReply:
        return await self.node.define(d.DefineRequest(definition))

    async def create(self, shards: int = 1, name: str = "books", schema: Schema = SCHEMA) -> Collection:
        reply = await self.define(d.CreateCollection(database="default", collection=name, schema=schema, shards=shards))
        assert reply.collection is not None
        return reply.collection

    async def write(self, collection: Collection, *parts: ShardWrite, **options: Any) -> WriteReply:
        return await self.node.write(request(self.house.clock, collection, *parts, **options))

    async def flush(self, collection: Collection) -> FlushReply:
        return await self.node.flush(FlushRequest(collection.id))

    def manifest(self, collection: Collection) -> Manifest:
        manifest = self.mirror.get(collection.id)
        assert manifest is not None
        return manifest

    def live(self, collection: Collection, kind: FileKind) -> list[File]:
        return [file for file in self.manifest(collection).live() if file.kind is kind]

    async def found(self, collection: Collection) -> dict[tuple[int, int], str | None]:
        """What is found: (partition, key) -> name, by replaying rows and tombstones in plain Python (P4)."""
        rows: list[tuple[int, int, int, str | None]] = []  # partition, key, version, name
        kills: list[tuple[int, int, int]] = []  # partition, key, below
        for file in self.manifest(collection).live():
            if file.kind is FileKind.SEGMENT:
                rows += await self._segment_rows(file)
                continue
            payload = await self._payload(file)
            if file.kind is FileKind.ROWS:
                batch = decode_rows(payload).to_pydict()
                found = zip(batch[PK], batch[NAME], strict=True)
                rows += [(file.partition_id, key, file.added, name) for key, name in found]
            else:
                stones = decode_tombstones(payload)
                found_stones = zip(stones.partitions, stones.keys.to_pylist(), stones.below, strict=True)
                kills += [(int(part), key, int(below) or file.added) for part, key, below in found_stones]
        alive = [
            (partition, key, name)
            for partition, key, version, name in rows
            if not any(key == dead and version < below and part in (0, partition) for part, dead, below in kills)
        ]
        result = {(partition, key): name for partition, key, name in alive}
        assert len(result) == len(alive), "a primary key is found twice"
        return result

    async def _payload(self, file: File) -> bytes:
        if file.inline:
            return await self.mirror.payload(file)
        return await self.house.storage.get(file.parts[0].path)

    async def _segment_rows(self, file: File) -> list[tuple[int, int, int, str | None]]:
        """Checks on the way that the segment is sorted and that each vector is its key's."""
        scalars, vectors = (self.house.folder / "storage" / part.path for part in file.parts)
        table = await asyncio.to_thread(open_scalars, scalars)
        matrix = await asyncio.to_thread(open_vectors, vectors, file.rows, DIM)
        keys = table.column(PK).to_pylist()
        assert keys == sorted(keys)
        assert (keys[0], keys[-1], len(keys)) == (file.pk_min, file.pk_max, file.rows)
        assert np.array_equal(matrix, vectors_of(keys))
        versions, names = table.column(VERSION_COLUMN).to_pylist(), table.column(NAME).to_pylist()
        return [(file.partition_id, key, v, name) for key, v, name in zip(keys, versions, names, strict=True)]


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it is true."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


def vectors_of(keys: Sequence[int]) -> np.ndarray:
    return np.array([[key, -key] for key in keys], np.float32).reshape(len(keys), DIM)


def batch(keys: Sequence[int], name: str | None = None) -> pa.RecordBatch:
    columns = [
        pa.array(keys, pa.int64()),
        pa.array([name] * len(keys), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors_of(keys).ravel()), DIM),
    ]
    return pa.RecordBatch.from_arrays(columns, names=[PK, NAME, VECTOR])


def insert(keys: Sequence[int], name: str | None = None, shard: int = 0) -> ShardWrite:
    return ShardWrite(shard, rows=memoryview(encode_rows(batch(keys, name))))


def delete(keys: Sequence[int], shard: int = 0, below: int = 0, partition_id: int = 0) -> ShardWrite:
    stones = tombstones_of(pa.array(keys, pa.int64()), below, partition_id)
    return ShardWrite(shard, deletes=memoryview(encode_tombstones(stones)))


def request(
    clock: FakeClock,
    collection: Collection,
    *parts: ShardWrite,
    partition: int | None = None,
    replaces: bool = True,
    request_id: str = "",
    name: str = "",
    deadline_s: float = 30.0,
) -> WriteRequest:
    return WriteRequest(
        collection_id=CollectionId(collection.id),
        partition_id=collection.partitions[0].id if partition is None else partition,
        schema_ts=collection.updated_ts,
        replaces=replaces,
        shards=parts,
        request_id=request_id or clock.token(),
        name=name or collection.name,
        deadline_s=deadline_s,
    )


async def refused(call: Any) -> MishardsError:
    with pytest.raises(MishardsError) as raised:
        await call
    return raised.value
