"""A small collection whose commits are made by hand, builders that work on it, and what it must hold (I12)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from mishards.builder.attempt import Tools
from mishards.builder.floors import Floors
from mishards.builder.node import BuilderNode
from mishards.builder.pool import Pool
from mishards.builder.workers import Workers
from mishards.clock import FakeClock
from mishards.config import BuilderSettings
from mishards.metadata.deltas import delta_of
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.metadata.store import SqlStore, open_store
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
    Index,
    IndexId,
    NodeId,
    Part,
    Partition,
    PartitionId,
    Schema,
    Version,
)
from mishards.ports import CommitRequest, Matrix, MetadataStore, VectorIndex
from mishards.segment.footer import verify
from mishards.segment.fresh import (
    Tombstones,
    concat,
    decode_rows,
    decode_tombstones,
    encode_rows,
    encode_tombstones,
    tombstones_of,
)
from mishards.segment.read import open_scalars, open_vectors, read_deletes
from mishards.segment.rewrite import Input, live_table, versioned
from mishards.segment.write import write_segment
from mishards.storage.file import FileStorage, open_storage
from mishards.wire.messages import Notice

DIM = 4
PK, TITLE, VECTOR = FieldId(100), FieldId(101), FieldId(102)
SCHEMA = Schema(
    fields=(
        Field(id=PK, name="id", type=DataType.INT64, primary_key=True),
        Field(id=TITLE, name="title", type=DataType.VARCHAR, max_length=100, nullable=True),
        Field(id=VECTOR, name="meaning", type=DataType.FLOAT_VECTOR, dim=DIM),
    )
)
SETTINGS = BuilderSettings(
    segment_bytes=1 << 16, merge_files=3, tombstones_max=8, threads=2, processes=0, rest_values=1, interval_s=0.01
)

Rows = Mapping[int, int]  # primary key -> a number from which title and vector are made
State = dict[tuple[int, int], int]  # (partition, primary key) -> that number


class FakeIndex:
    """An index kind worthwhile at once, whose file is the vectors; `gate` holds builds up while it is cleared."""

    name = "FAKE"
    metrics = frozenset({"L2"})

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.building = threading.Event()

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        return dict(params)

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        return dict(params)

    def worthwhile(self, rows: int, dim: int) -> bool:
        return True

    def build(self, vectors: Matrix, metric: str, params: Mapping[str, Any], threads: int, target: Path) -> None:
        self.building.set()
        self.gate.wait(timeout=30)
        target.write_bytes(vectors.tobytes())

    def load(self, path: Path, metric: str) -> VectorIndex:
        raise AssertionError("a builder loads no index")


class Shop:
    """One collection in SQLite and a directory, seen through a mirror, with every version's state remembered."""

    def __init__(self, store: SqlStore, storage: FileStorage, mirror: Mirror, collection: Collection, folder: Path):
        self.store = store
        self.storage = storage
        self.mirror = mirror
        self.collection = collection
        self.clock = FakeClock(seed=7)
        self.ids = IdBlocks(store)
        self.index = FakeIndex()
        self.states: list[State] = [{}]  # by version
        self.announced: list[Notice] = []
        self.floors: dict[CollectionId, Version] = {}  # that nodes report
        self._folder = folder

    def builder(
        self,
        name: str = "b1",
        store: MetadataStore | None = None,
        settings: BuilderSettings = SETTINGS,
        floors: Floors | None = None,
    ) -> BuilderNode:
        return BuilderNode(
            NodeId(name),
            store or self.store,
            self.storage,
            self.mirror,
            self.ids,
            settings,
            self.clock,
            self.work_dir(name),
            lambda _: self.index,
            self.announced.append,
            floors or self._floors,
        )

    async def _floors(self) -> dict[CollectionId, Version]:
        return self.floors

    def work_dir(self, name: str) -> Path:
        return self._folder / "work" / name

    async def live(self, kind: FileKind | None = None) -> list[File]:
        files = (await self.store.delta(self.collection.id, Version(0))).added
        return [file for file in files if kind is None or file.kind is kind]

    def tools(self) -> Tools:
        """What an attempt works with that no builder makes."""
        return Tools(
            self.store,
            self.storage,
            self.mirror,
            self.ids,
            self.clock,
            Pool(1),
            Workers(0, Pool(1)),
            self.work_dir("attempts"),
            lambda _: self.index,
            self.announced.append,
        )

    def known(self) -> list[File]:
        """The live files in the mirror as it is."""
        manifest = self.mirror.get(self.collection.id)
        return manifest.live() if manifest else []

    async def define(self, **changes: Any) -> None:
        """Replace fields of the definition."""
        new = replace(self.collection, updated_ts=self.collection.updated_ts + 1, **changes)
        await self.store.replace_collection(self.collection, new)
        self.collection = new
        await self.mirror.refresh()

    # -------------------------------------------------------------------------------------------------------- commits

    async def write(
        self,
        rows: Rows,
        deletes: Iterable[int] = (),
        partition: int = 1,
        below: int = 0,
        in_storage: bool = False,
        replaces: bool = True,
    ) -> None:
        """One commit: the deletes (as seen below that version), then the rows, which replace older ones."""
        deletes = list(deletes)
        stones = [tombstones_of(pa.array(sorted(rows), pa.int64()))] if rows and replaces else []
        stones += [tombstones_of(pa.array(deletes, pa.int64()), below)] if deletes else []
        state = dict(self.states[-1])
        seen = self.states[below - 1] if below else state
        for place in list(state):
            replaced = place[1] in rows or (place[1] in deletes and seen.get(place) == state[place])
            if replaced:
                del state[place]
        state |= {(partition, key): number for key, number in rows.items()}
        files, payloads = [], {}
        if rows:
            batch = rows_of(rows)
            file = await self._file(FileKind.ROWS, len(rows), partition)
            files.append(file)
            payloads[file.id] = encode_rows(batch, self.collection.id)
        if stones:
            both: Tombstones = concat(stones)
            file = await self._file(FileKind.TOMBSTONES, len(both), 0)
            files.append(file)
            payloads[file.id] = encode_tombstones(both, self.collection.id)
        if in_storage:
            files = [await self._moved(file, payloads.pop(file.id)) for file in files]
        self._settle_states(await self._commit(files, [], payloads) - 1)
        self.states.append(state)

    async def list_again(self, segment: File) -> None:
        """Replace a segment's record by an equal one, as a materialisation does that kills nothing."""
        record = replace(segment, id=FileId(await self.ids.take(1)), added=Version(0))
        self._settle_states(await self._commit([record], [segment], {}))

    async def seal(self) -> None:
        """The fresh rows of each partition become a segment, as a writer does it."""
        delta = await self.store.delta(self.collection.id, Version(0))
        live, version = delta.added, delta.version
        stones = [
            (file.added, decode_tombstones(await self._payload(file)))
            for file in live
            if file.kind is FileKind.TOMBSTONES
        ]
        fresh = [file for file in live if file.kind is FileKind.ROWS]
        added = []
        for partition in sorted({file.partition_id for file in fresh}):
            inputs = [
                Input(versioned(decode_rows(await self._payload(file)), file.added, file.newest_ts), partition)
                for file in fresh
                if file.partition_id == partition
            ]
            table = live_table(inputs, stones, str(PK))
            if table.num_rows:
                added.append(await self._segment(table, partition, version))
        self._settle_states(await self._commit(added, fresh, {}))

    async def _segment(self, table: pa.Table, partition: PartitionId, horizon: Version) -> File:
        folder = self._folder / self.clock.token()
        folder.mkdir()
        made = write_segment(table, SCHEMA, folder, self.collection.id, 0)
        parts = []
        for part in made.parts:
            path = f"{self.collection.id}/0/writer/{self.clock.token()}.{part.kind}"
            await self.storage.put_file(path, part.path)
            parts.append(Part(kind=part.kind, path=path, bytes=part.bytes, field_id=part.field_id))
        id = FileId(await self.ids.take(1))
        return File(
            id=id,
            collection_id=self.collection.id,
            shard=0,
            kind=FileKind.SEGMENT,
            rows=made.rows,
            bytes=sum(part.bytes for part in parts),
            partition_id=partition,
            segment_id=id,
            horizon=horizon,
            pk_min=made.pk_min,
            pk_max=made.pk_max,
            oldest_ts=made.oldest_ts,
            newest_ts=made.newest_ts,
            parts=tuple(parts),
        )

    async def _file(self, kind: FileKind, rows: int, partition: int) -> File:
        return File(
            id=FileId(await self.ids.take(1)),
            collection_id=self.collection.id,
            shard=0,
            kind=kind,
            rows=rows,
            bytes=1,
            partition_id=PartitionId(partition),
            parts=(Part(kind="fresh", path="", bytes=1),),
            inline=True,
        )

    async def _moved(self, file: File, payload: bytes) -> File:
        """The file with its payload in storage."""
        path = f"{self.collection.id}/0/writer/{self.clock.token()}.fresh"
        await self.storage.put(path, payload)
        return replace(file, parts=(Part(kind="fresh", path=path, bytes=len(payload)),), inline=False)

    async def _commit(self, added: Sequence[File], removed: Sequence[File], payloads: dict[FileId, bytes]) -> int:
        request = CommitRequest(
            collection_id=self.collection.id,
            uuid=self.clock.token(),
            kind="write",
            now_ms=self.clock.unix_ms(),
            added=tuple(added),
            removed=tuple(file.id for file in removed),
            payloads=payloads,
        )
        commit = await self.store.commit(request)
        self.mirror.apply(delta_of(request, commit))
        return commit.version

    def _settle_states(self, version: int) -> None:
        """The commits up to `version` of which nothing is known are layout commits: they change no state."""
        self.states += [self.states[-1]] * (version + 1 - len(self.states))

    # ---------------------------------------------------------------------------------------------------------- truth

    async def check(self) -> None:
        """Every plan (p, v) of the newest v, and every v at its own layout, gives the state of v (P7, I5, I12)."""
        await self.mirror.refresh()
        manifest = self.mirror.get(self.collection.id)
        assert manifest is not None
        self._settle_states(manifest.version)
        files = list(manifest.files.values())
        loaded = dict(zip((file.id for file in files), await asyncio.gather(*map(self._load, files)), strict=True))
        newest = manifest.version
        for layout, version in [(v, v) for v in range(newest)] + [(p, newest) for p in range(newest + 1)]:
            assert fold(files, loaded, layout, version) == self.states[version], f"layout {layout}, version {version}"

    async def _payload(self, file: File) -> bytes:
        return await self.mirror.payload(file) if file.inline else await self.storage.get(file.parts[0].path)

    async def _load(self, file: File) -> list[tuple[int, int, int]]:
        """ROWS and SEGMENT: (key, version, number), dead ones left out; TOMBSTONES: (key, below, partition)."""
        if file.kind is FileKind.TOMBSTONES:
            stones = decode_tombstones(await self._payload(file))
            return list(zip(stones.keys.to_pylist(), stones.below.tolist(), stones.partitions.tolist(), strict=True))
        if file.kind is FileKind.ROWS:
            batch = decode_rows(await self._payload(file))
            return [(key, file.added, number) for key, number in numbers_of(batch)]
        return await self._load_segment(file)

    async def _load_segment(self, file: File) -> list[tuple[int, int, int]]:
        local = {}
        for part in file.parts:
            local[part.kind] = self._folder / self.clock.token()
            await self.storage.fetch(part.path, local[part.kind])
            assert verify(local[part.kind]).rows == file.rows
        table = open_scalars(local["scalars"])
        vectors = open_vectors(local["vectors"], file.rows, DIM)
        dead = read_deletes(local["deletes"], file.rows) if "deletes" in local else np.zeros(file.rows, bool)
        assert table.num_rows == file.rows
        assert np.count_nonzero(dead) == file.dead
        if "index" in local:
            assert local["index"].read_bytes().startswith(vectors.tobytes())
        keys, numbers = (
            table.column(str(PK)).to_pylist(),
            [int(title) for title in table.column(str(TITLE)).to_pylist()],
        )
        assert keys == sorted(keys)
        assert (keys[0], keys[-1]) == (file.pk_min, file.pk_max)
        assert vectors[:, 0].tolist() == numbers
        rows = zip(keys, table.column(VERSION_COLUMN).to_pylist(), numbers, strict=True)
        return [row for row, gone in zip(rows, dead, strict=True) if not gone]


@asynccontextmanager
async def open_shop(folder: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as parts:
        clock = FakeClock()
        store = open_store(f"sqlite:///{folder}/metadata.db", clock)
        await store.open()
        parts.push_async_callback(store.close)
        collection = Collection(
            id=CollectionId(1),
            name="shop",
            schema=SCHEMA,
            created_ts=0,
            updated_ts=0,
            partitions=(Partition(PartitionId(1), "a", 0), Partition(PartitionId(2), "b", 0)),
        )
        await store.create_collection(collection)
        mirror = Mirror(store, clock, poll_s=3600)
        await mirror.start()
        parts.push_async_callback(mirror.stop)
        yield Shop(store, open_storage((folder / "storage").as_uri()), mirror, collection, folder)


INDEX = Index(id=IndexId(9), name="by_meaning", field_id=VECTOR, type="FAKE", metric="L2")


async def segments(shop: Shop, count: int, replaces: bool = True) -> None:
    """That many segments of ten rows each."""
    for number in range(count):
        await shop.write({number * 10 + i: 1000 + number * 10 + i for i in range(10)}, replaces=replaces)
        await shop.seal()


async def settle(shop: Shop) -> int:
    """Rounds of one builder until there is nothing left to do; how many tasks were done."""
    builder = shop.builder()
    total = 0
    while done := await builder.step():
        total += done
    await builder.stop()
    return total


def fold(
    files: Sequence[File], loaded: Mapping[FileId, list[tuple[int, int, int]]], layout: int, version: int
) -> State:
    """What the plan (layout, version) holds, row by row (P4, P7)."""
    fresh = [file for file in files if file.added <= version and (file.removed == 0 or file.removed > layout)]
    segments = [file for file in files if file.kind is FileKind.SEGMENT and file.live_at(layout)]
    stones = [
        (key, below or file.added, partition)
        for file in fresh
        if file.kind is FileKind.TOMBSTONES
        for key, below, partition in loaded[file.id]
    ]
    state: State = {}
    for file in [*segments, *(file for file in fresh if file.kind is FileKind.ROWS)]:
        for key, row_version, number in loaded[file.id]:
            if any(
                key == stone and row_version < below and partition in (0, file.partition_id)
                for stone, below, partition in stones
            ):
                continue
            assert (file.partition_id, key) not in state, f"primary key {key} is found twice"
            state[file.partition_id, key] = number
    return state


def rows_of(rows: Rows) -> pa.RecordBatch:
    keys = sorted(rows)
    vectors = np.repeat(np.array([rows[key] for key in keys], np.float32), DIM)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(keys, pa.int64()),
            pa.array([str(rows[key]) for key in keys], pa.utf8()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIM),
        ],
        names=[field.column for field in SCHEMA.fields],
    )


def numbers_of(batch: pa.RecordBatch) -> list[tuple[int, int]]:
    return [
        (key, int(title))
        for key, title in zip(batch.column(str(PK)).to_pylist(), batch.column(str(TITLE)).to_pylist(), strict=True)
    ]
