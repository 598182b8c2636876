"""Inserts, upserts and deletes: checked, encoded, split over shards, sent to their owners (P2, P3).

What one owner gets is one commit; a write that spans owners is atomic per owner. A write is repeated after a lost
answer: rows and tombstones carry their keys, so doing it twice leaves what doing it once leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, invalid
from mishards.filter import Filter
from mishards.metadata.ids import IdBlocks
from mishards.model import Collection, PartitionId, Schema
from mishards.proxy.catalog import Catalog
from mishards.proxy.filters import compiled
from mishards.proxy.querying import Querying
from mishards.proxy.requests import DeleteRequest, Mutation, QueryRequest, RowsRequest
from mishards.proxy.writers import Writers
from mishards.schema.columns import Column
from mishards.schema.keys import arrow_type, shard_of
from mishards.schema.rows import encode_keys, encode_rows
from mishards.segment.fresh import Tombstones, tombstones_of
from mishards.segment.fresh import encode_rows as seal_rows
from mishards.segment.fresh import encode_tombstones as seal_tombstones
from mishards.wire.messages import ShardWrite, WriteReply, WriteRequest
from mishards.wire.services import WriterService

W = TypeVar("W", RowsRequest, DeleteRequest)

THREAD_ROWS = 2_000  # larger writes are encoded in a thread


class Writing:
    """Answers `ProxyService.write` and `.delete`."""

    def __init__(self, catalog: Catalog, querying: Querying, writers: Writers, ids: IdBlocks, clock: Clock) -> None:
        self._catalog = catalog
        self._querying = querying
        self._writers = writers
        self._ids = ids
        self._clock = clock

    async def write(self, request: RowsRequest) -> Mutation:
        return await self._on_collection(request, self._write)

    async def delete(self, request: DeleteRequest) -> Mutation:
        if not request.filter.strip():
            raise invalid("delete expression is empty, it must select the rows to delete")
        return await self._on_collection(request, self._delete)

    async def _on_collection(self, request: W, act: Callable[[W, Collection], Awaitable[Mutation]]) -> Mutation:
        """`act` on the collection of that name; once more if it was dropped and another one has the name by now."""
        known = (await self._catalog.known(request.database, request.collection)).collection
        try:
            return await act(request, known)
        except MishardsError as error:
            if error.kind is not Kind.COLLECTION_NOT_FOUND:
                raise
            current = (await self._catalog.fresh(request.database, request.collection)).collection
            if current.id == known.id:
                raise
            return await act(request, current)

    async def _write(self, request: RowsRequest, collection: Collection) -> Mutation:
        deadline_s = self._clock.monotonic_s() + request.timeout_s
        if 0 < request.schema_ts < collection.created_ts:
            raise MishardsError(
                Kind.SCHEMA_MISMATCH, f"collection {collection.name} was created anew since the client described it"
            )
        partition = await self._partition(request.database, collection, request.partition)
        generated = None
        if collection.schema.primary.auto_id:
            if request.rows < 1:
                raise invalid("num_rows should be greater than 0, got 0: the rows to write are empty")
            first = await self._ids.take(request.rows)
            generated = np.arange(first, first + request.rows, dtype=np.int64)
        encode = _encoded_upsert if request.kind == "upsert" else _encoded_insert
        shards = collection.shards
        arguments = (collection.schema, dict(request.columns), request.rows, generated, shards)
        if request.rows >= THREAD_ROWS:
            keys, parts = await asyncio.to_thread(encode, *arguments)
        else:
            keys, parts = encode(*arguments)
        ts = await self._send(collection, partition, parts, replaces=generated is None, deadline_s=deadline_s)
        plain = keys.to_numpy() if pa.types.is_integer(keys.type) else keys.to_pylist()
        return Mutation(count=request.rows, ts=ts, keys=plain)

    async def _delete(self, request: DeleteRequest, collection: Collection) -> Mutation:
        deadline_s = self._clock.monotonic_s() + request.timeout_s
        condition = await compiled(request.filter, collection.schema, request.template)
        keys = _keys_alone(condition, collection.schema)
        below = 0
        if keys is None:
            collection, keys, version = await self._querying.keys(
                QueryRequest(
                    collection=request.collection,
                    database=request.database,
                    partitions=(request.partition,) if request.partition else (),
                    filter=request.filter,
                    template=request.template,
                    timeout_s=request.timeout_s,
                )
            )
            below = version + 1  # rows written since were not looked at
        partition_id = PartitionId(0)
        if request.partition:
            partition_id = await self._partition(request.database, collection, request.partition)
        if len(keys) == 0:
            return Mutation(count=0, ts=collection.created_ts)
        tombstones = tombstones_of(keys, below, partition_id)
        parts = _split(collection.shards, keys, lambda rows: (None, _some(tombstones, rows)))
        ts = await self._send(collection, partition_id, parts, replaces=True, deadline_s=deadline_s)
        return Mutation(count=len(keys), ts=ts)

    async def _partition(self, database: str, collection: Collection, name: str) -> PartitionId:
        partition = collection.partition(name or "_default")
        if partition is None:
            fresh = await self._catalog.fresh(database, collection.name)
            partition = fresh.collection.partition(name or "_default")
        if partition is None:
            raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={name}]")
        return partition.id

    async def _send(
        self,
        collection: Collection,
        partition_id: PartitionId,
        parts: Sequence[ShardWrite],
        *,
        replaces: bool,
        deadline_s: float,
    ) -> int:
        """The newest hybrid timestamp of the commits."""
        request_id = self._clock.token()

        def write(writer: WriterService, shards: Sequence[int], retried: bool, left_s: float) -> Awaitable[WriteReply]:
            mine = tuple(part for part in parts if part.shard in shards)
            return writer.write(
                WriteRequest(
                    collection_id=collection.id,
                    partition_id=partition_id,
                    schema_ts=collection.updated_ts,
                    replaces=replaces or retried,
                    shards=mine,
                    request_id=f"{request_id}/{','.join(str(part.shard) for part in mine)}",
                    deadline_s=left_s,
                )
            )

        replies = await self._writers.ask_owners(collection.id, [part.shard for part in parts], write, deadline_s)
        return max(reply.ts for reply in replies)


def _encoded_insert(
    schema: Schema, columns: dict[str, Column], rows: int, generated: np.ndarray | None, shards: int
) -> tuple[pa.Array, list[ShardWrite]]:
    batch = encode_rows(schema, columns, rows, generated)
    keys = batch.column(schema.primary.column)
    return keys, _split(shards, keys, lambda chosen: (_rows(batch, chosen), None))


def _encoded_upsert(
    schema: Schema, columns: dict[str, Column], rows: int, generated: np.ndarray | None, shards: int
) -> tuple[pa.Array, list[ShardWrite]]:
    """With generated keys the given ones name the rows to replace, and the new rows get fresh ones (as Milvus does)."""
    if generated is None:
        return _encoded_insert(schema, columns, rows, None, shards)
    old = encode_keys(schema, columns, rows)
    columns.pop(schema.primary.name)
    new, inserts = _encoded_insert(schema, columns, rows, generated, shards)
    tombstones = tombstones_of(old)
    deletes = _split(shards, old, lambda chosen: (None, _some(tombstones, chosen)))
    by_shard = {part.shard: part for part in inserts}
    for part in deletes:
        known = by_shard.get(part.shard, part)
        by_shard[part.shard] = ShardWrite(part.shard, known.rows, part.deletes)
    return new, list(by_shard.values())


def _split(
    shards: int,
    keys: pa.Array,
    take: Callable[[np.ndarray | None], tuple[pa.RecordBatch | None, Tombstones | None]],
) -> list[ShardWrite]:
    """One `ShardWrite` per shard that has rows; `take` gives the rows at positions (None: all)."""
    owners = shard_of(keys, shards)
    parts = []
    for shard in range(shards):
        chosen = None if shards == 1 else np.flatnonzero(owners == shard)
        if chosen is not None and len(chosen) == 0:
            continue
        rows, tombstones = take(chosen)
        parts.append(
            ShardWrite(
                shard,
                memoryview(b"" if rows is None else seal_rows(rows)),
                memoryview(b"" if tombstones is None else seal_tombstones(tombstones)),
            )
        )
    return parts


def _rows(batch: pa.RecordBatch, chosen: np.ndarray | None) -> pa.RecordBatch:
    return batch if chosen is None else batch.take(pa.array(chosen))


def _some(tombstones: Tombstones, chosen: np.ndarray | None) -> Tombstones:
    if chosen is None:
        return tombstones
    return Tombstones(tombstones.keys.take(pa.array(chosen)), tombstones.below[chosen], tombstones.partitions[chosen])


def _keys_alone(condition: Filter, schema: Schema) -> pa.Array | None:
    """The keys a filter selects when it speaks of nothing but the primary key and names a finite set; else None."""
    primary = schema.primary
    if condition.keys is None or condition.columns - {primary.column}:
        return None
    named = pc.unique(pa.array(condition.keys, arrow_type(primary)))
    table = pa.table({primary.column: named})
    return named.filter(pa.array(condition.mask(table)))
