"""A proxy in memory: enough of a database for the door's tests, and a record of what it was asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from mishards.clock import FakeClock, hybrid
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.model import (
    Collection,
    CollectionId,
    Field,
    File,
    FileId,
    FileKind,
    Index,
    IndexId,
    Member,
    Partition,
    PartitionId,
)
from mishards.proxy import requests as r
from mishards.schema.keys import physical_schema
from mishards.schema.output import resolve_output
from mishards.schema.rows import encode_rows
from mishards.wire import definitions as d


class FakeProxy:
    """Implements `ProxyService` over one Arrow table a collection. `fail` is raised by the next call of that name."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.known: dict[str, Collection] = {}
        self.tables: dict[int, pa.Table] = {}
        self.seen: list[object] = []
        self.failures: dict[str, list[Exception]] = {}
        self.pending = 0  # rows not indexed yet
        self.reached = asyncio.Event()  # by a search
        self.hold: asyncio.Event | None = None  # searches wait for it
        self._ticks = 0

    def fail(self, method: str, *errors: Exception) -> None:
        self.failures[method] = list(errors)

    def _note(self, method: str, request: object = None) -> None:
        self.seen.append(request)
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    def _tick(self) -> int:
        self._ticks += 1
        return hybrid(self.clock.unix_ms(), self._ticks)

    # ------------------------------------------------------------------------------------------------- definitions

    async def collection(self, database: str, name: str) -> Collection:
        self._note("collection")
        for collection in self.known.values():
            if name == collection.name or name in collection.aliases:
                return collection
        raise collection_not_found(name, database)

    async def collections(self, database: str) -> list[Collection]:
        return list(self.known.values())

    async def define(self, definition: d.AnyDefinition) -> Collection | None:
        self._note("define", definition)
        if isinstance(definition, d.CreateCollection):
            return self._create(definition)
        if isinstance(definition, d.DropAlias):
            for one in list(self.known.values()):
                self._put(one, aliases=tuple(alias for alias in one.aliases if alias != definition.alias))
            return None
        collection = await self.collection(definition.database, definition.collection)
        if isinstance(definition, d.DropCollection):
            del self.known[collection.name]
            return None
        return self._changed(collection, definition)

    def _create(self, wanted: d.CreateCollection) -> Collection:
        known = self.known.get(wanted.collection)
        if known is not None:
            if known.schema == wanted.schema:
                return known
            words = f"create duplicate collection with different parameters, collection: {wanted.collection}"
            raise MishardsError(Kind.UNEXPECTED, words)
        ts = self._tick()
        id = CollectionId(1000 + len(self.tables))
        self.tables[id] = physical_schema(wanted.schema).empty_table()
        collection = Collection(
            id=id,
            name=wanted.collection,
            schema=wanted.schema,
            created_ts=ts,
            updated_ts=ts,
            shards=wanted.shards,
            consistency=wanted.consistency,
            properties=wanted.properties,
            partitions=(Partition(PartitionId(1), "_default", ts),),
        )
        self.known[collection.name] = collection
        return collection

    def _changed(self, one: Collection, wanted: d.AnyDefinition) -> Collection:
        match wanted:
            case d.CreateIndex():
                field = one.schema.field(wanted.field)
                assert field is not None
                id = IndexId(len(one.indexes) + 1)
                index = Index(
                    id=id,
                    name=wanted.name,
                    field_id=field.id,
                    type=wanted.type,
                    metric=wanted.metric or ("L2" if field.is_vector else ""),
                    params=wanted.params,
                    raw=wanted.raw,
                )
                return self._put(one, indexes=(*one.indexes, index))
            case d.DropIndex():
                return self._put(one, indexes=tuple(index for index in one.indexes if index.name != wanted.name))
            case d.LoadCollection() | d.LoadPartitions():
                return self._put(one, loaded=True)
            case d.ReleaseCollection() | d.ReleasePartitions():
                return self._put(one, loaded=False)
            case d.CreatePartition():
                partition = Partition(PartitionId(len(one.partitions) + 1), wanted.partition, self._tick())
                return self._put(one, partitions=(*one.partitions, partition))
            case d.DropPartition():
                return self._put(one, partitions=tuple(p for p in one.partitions if p.name != wanted.partition))
            case d.CreateAlias() | d.AlterAlias():
                return self._put(one, aliases=(*one.aliases, wanted.alias))
            case d.RenameCollection():
                del self.known[one.name]
                return self._put(one, name=wanted.name)
            case d.AlterProperties():
                kept = {key: value for key, value in one.properties.items() if key not in wanted.delete}
                return self._put(one, properties=kept | wanted.set)
        raise AssertionError(wanted)

    def _put(self, one: Collection, **changes: object) -> Collection:
        changed = msgspec.structs.replace(one, updated_ts=self._tick(), **changes)
        self.known[changed.name] = changed
        return changed

    # -------------------------------------------------------------------------------------------------------- rows

    async def write(self, request: r.RowsRequest) -> r.Mutation:
        self._note("write", request)
        collection = await self.collection(request.database, request.collection)
        if request.schema_ts and request.schema_ts != collection.updated_ts:
            raise MishardsError(Kind.SCHEMA_MISMATCH, "schema mismatch")
        key = collection.schema.primary
        held = self.tables[collection.id]
        generated = np.arange(500 + len(held), 500 + len(held) + request.rows) if key.auto_id else None
        batch = encode_rows(collection.schema, request.columns, request.rows, generated)
        keys = batch.column(key.column)
        fresh = np.isin(held.column(key.column).to_numpy(), keys.to_numpy(zero_copy_only=False), invert=True)
        self.tables[collection.id] = pa.concat_tables([held.filter(pa.array(fresh)), pa.table(batch)])
        written = keys.to_numpy() if generated is not None or key.type == 5 else keys.to_pylist()
        return r.Mutation(count=request.rows, ts=self._tick(), keys=written)

    async def delete(self, request: r.DeleteRequest) -> r.Mutation:
        self._note("delete", request)
        collection = await self.collection(request.database, request.collection)
        rows = self._rows(collection, request.filter)
        held = self.tables[collection.id]
        self.tables[collection.id] = held.filter(pa.array(~np.isin(np.arange(len(held)), rows)))
        return r.Mutation(count=len(rows), ts=self._tick())

    async def search(self, request: r.SearchRequest) -> r.SearchResult:
        self._note("search", request)
        self.reached.set()
        if self.hold is not None:
            await self.hold.wait()
        collection = await self.collection(request.database, request.collection)
        schema = collection.schema
        table = self.tables[collection.id]
        field: Field = next(f for f in schema.vectors if request.field in ("", f.name))
        vectors = (
            np.stack(table.column(field.column).to_numpy()) if len(table) else np.zeros((0, field.dim), np.float32)
        )
        distances = ((request.queries[:, None, :] - vectors[None]) ** 2).sum(axis=2)
        best = np.argsort(distances, axis=1, kind="stable")[:, request.offset : request.offset + request.limit]
        places = best.ravel()
        output = resolve_output(schema, request.output)
        rows = table.select([f.column for f in output.fields]).take(pa.array(places, pa.int64()))
        keys = table.column(schema.primary.column).take(pa.array(places, pa.int64()))
        return r.SearchResult(
            collection=collection,
            counts=np.full(len(best), best.shape[1], np.int32),
            scores=np.take_along_axis(distances, best, 1).ravel().astype(np.float32),
            keys=keys.to_pylist() if schema.primary.type == 21 else keys.to_numpy(),
            output=output.names,
            rows=_batch(rows) if output.fields else None,
            ts=self._tick(),
        )

    async def query(self, request: r.QueryRequest) -> r.QueryResult:
        self._note("query", request)
        collection = await self.collection(request.database, request.collection)
        places = self._rows(collection, request.filter)
        if request.count:
            return r.QueryResult(collection=collection, output=(), rows=None, count=len(places), ts=self._tick())
        output = resolve_output(collection.schema, request.output, with_key=True)
        rows = self.tables[collection.id].take(pa.array(places, pa.int64()))
        rows = rows.sort_by(collection.schema.primary.column).select([f.column for f in output.fields])
        rows = rows.slice(request.offset, request.limit)
        return r.QueryResult(collection=collection, output=output.names, rows=_batch(rows), count=0, ts=self._tick())

    def _rows(self, collection: Collection, filter: str) -> list[int]:
        """Row numbers that pass; knows `... in [...]` and `key > n` only, anything else passes all."""
        keys = self.tables[collection.id].column(collection.schema.primary.column).to_pylist()
        chosen = re.search(r" in (\[.*\])", filter)
        above = re.search(r" > (\d+)", filter)
        if chosen:
            wanted = msgspec.json.decode(chosen[1].replace("'", '"'))
            return [row for row, key in enumerate(keys) if key in wanted]
        return [row for row, key in enumerate(keys) if above is None or key > int(above[1])]

    # ------------------------------------------------------------------------------------------------------- state

    async def flush(self, database: str, names: Sequence[str]) -> list[r.Flushed]:
        self._note("flush", tuple(names))
        return [r.Flushed(await self.collection(database, name), self._tick(), (7, 8)) for name in names]

    async def flushed(self, segments: Sequence[int]) -> bool:
        return True

    async def row_count(self, database: str, name: str, partition: str = "") -> int:
        return len(self.tables[(await self.collection(database, name)).id])

    async def load_progress(self, database: str, name: str, partitions: Sequence[str] = ()) -> int:
        if not (await self.collection(database, name)).loaded:
            raise MishardsError(Kind.COLLECTION_NOT_LOADED, f"collection not loaded[collection={name}]")
        return 100

    async def index_progress(self, database: str, name: str, index_id: int) -> r.IndexProgress:
        rows = await self.row_count(database, name)
        return r.IndexProgress(rows + self.pending, rows)

    async def segments(self, database: str, name: str) -> list[File]:
        collection = await self.collection(database, name)
        rows = len(self.tables[collection.id])
        segment = File(
            id=FileId(7),
            segment_id=FileId(7),
            collection_id=collection.id,
            shard=0,
            kind=FileKind.SEGMENT,
            rows=rows,
            bytes=1234,
            partition_id=PartitionId(1),
        )
        return [segment] if rows else []

    async def fresh_ts(self) -> int:
        return self._tick()

    def members(self) -> Sequence[Member]:
        return ()

    def unhealthy(self) -> list[str]:
        return []


def _batch(table: pa.Table) -> pa.RecordBatch:
    if not len(table):
        return pa.RecordBatch.from_pylist([], table.schema)
    return table.combine_chunks().to_batches()[0]
