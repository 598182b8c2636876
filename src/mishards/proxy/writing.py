"""Inserts, upserts and deletes: checked, encoded, split over shards, sent to their owners (P2, P3).

What one owner gets is one commit; a write that spans owners is atomic per owner. A write carries an id, under which
each shard's part takes effect once however often it is repeated. When the outcome stays unknown the metadata service is
asked: what is not committed by then never will be, so that the client gets a definite answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, invalid
from mishards.filter import Filter
from mishards.metadata.ids import IdBlocks
from mishards.model import Collection, PartitionId, Schema
from mishards.ports import MetadataStore
from mishards.proxy.catalog import Catalog
from mishards.proxy.filters import compiled
from mishards.proxy.querying import Querying
from mishards.proxy.requests import DeleteRequest, Mutation, QueryRequest, RowsRequest
from mishards.proxy.writers import Writers, answered
from mishards.schema.columns import Column
from mishards.schema.keys import arrow_type, shard_of
from mishards.schema.rows import encode_keys, encode_rows
from mishards.segment.fresh import encode_rows as seal_rows
from mishards.segment.fresh import encode_tombstones as seal_tombstones
from mishards.segment.fresh import tombstones_of
from mishards.segment.keys import ascending, last_of_each_key
from mishards.wire.messages import ANY_PARTITION, ShardWrite, WriteReply, WriteRequest, request_part
from mishards.wire.services import WriterService

W = TypeVar("W", RowsRequest, DeleteRequest)

SHORT_ROWS = 256  # of short values: encoded in well under a millisecond; more, or longer ones, in a thread
SHORT_BYTES = 64 << 10

DROPPED = frozenset({Kind.COLLECTION_NOT_FOUND, Kind.PARTITION_NOT_FOUND})
PARTLY = "in part"  # detail of an error: some rows were written, or may have been
UNSURE = frozenset(  # a writer that answers so may have written, or may still
    {Kind.DEADLINE, Kind.PEER_LOST, Kind.UNAVAILABLE, Kind.METADATA_UNAVAILABLE, Kind.INTERNAL}
)
RESOLVE_SHARE = 0.1  # of a write's time is kept to learn its outcome ...
RESOLVE_S_MAX = 1.0  # ... but no more, ...
RESOLVE_S_MIN = 0.1  # ... and not less


class Writing:
    """Answers `ProxyService.write` and `.delete`."""

    def __init__(
        self, catalog: Catalog, querying: Querying, writers: Writers, ids: IdBlocks, store: MetadataStore, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._querying = querying
        self._writers = writers
        self._ids = ids
        self._store = store
        self._clock = clock

    async def write(self, request: RowsRequest) -> Mutation:
        return await self._on_collection(request, self._write)

    async def delete(self, request: DeleteRequest) -> Mutation:
        if not request.filter.strip():
            raise invalid("delete expression is empty, it must select the rows to delete")
        return await self._on_collection(request, self._delete)

    async def _on_collection(self, request: W, act: Callable[[W, Collection, float], Awaitable[Mutation]]) -> Mutation:
        """`act` on the collection of that name; once more if another one has the name by now, or the partition's."""
        deadline_s = self._clock.monotonic_s() + request.timeout_s
        async with self._in_time(request, deadline_s):
            known = (await self._catalog.known(request.database, request.collection)).collection
        try:
            return await act(request, known, deadline_s)
        except MishardsError as error:
            if error.kind not in DROPPED or error.detail == PARTLY:
                raise
            async with self._in_time(request, deadline_s):
                current = (await self._catalog.fresh(request.database, request.collection)).collection
            if (current.id, current.partitions) == (known.id, known.partitions):
                raise
            return await act(request, current, deadline_s)

    @asynccontextmanager
    async def _in_time(self, request: RowsRequest | DeleteRequest, deadline_s: float) -> AsyncIterator[None]:
        """Around questions to the metadata service before anything is written; it may hang. DEADLINE."""
        try:
            async with asyncio.timeout(deadline_s - self._clock.monotonic_s()):
                yield
        except TimeoutError as error:
            message = f"not answered within {request.timeout_s:g} s; nothing was written"
            raise MishardsError(Kind.DEADLINE, message) from error

    async def _write(self, request: RowsRequest, collection: Collection, deadline_s: float) -> Mutation:
        if 0 < request.schema_ts < collection.created_ts:
            raise MishardsError(
                Kind.SCHEMA_MISMATCH, f"collection {collection.name} was created anew since the client described it"
            )
        if collection.schema.primary.auto_id and request.rows < 1:
            raise invalid("num_rows should be greater than 0, got 0: the rows to write are empty")
        generated = None
        async with self._in_time(request, deadline_s):
            partition = await self._partition(request.database, collection, request.partition)
            if collection.schema.primary.auto_id:
                first = await self._ids.take(request.rows)
                generated = np.arange(first, first + request.rows, dtype=np.int64)
        encode = _encoded_upsert if request.kind == "upsert" else _encoded_insert
        arguments = (collection, dict(request.columns), request.rows, generated)
        if _is_short(request):
            keys, parts = encode(*arguments)
        else:
            keys, parts = await asyncio.to_thread(encode, *arguments)
        ts = await self._send(request, collection, partition, parts, generated is None, deadline_s)
        plain = keys.to_numpy() if pa.types.is_integer(keys.type) else keys.to_pylist()
        return Mutation(count=request.rows, ts=ts, keys=plain)

    async def _delete(self, request: DeleteRequest, collection: Collection, deadline_s: float) -> Mutation:
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
                    timeout_s=deadline_s - self._clock.monotonic_s(),
                )
            )
            below = version + 1  # rows written since were not looked at
        partition_id = ANY_PARTITION
        if request.partition:
            async with self._in_time(request, deadline_s):
                partition_id = await self._partition(request.database, collection, request.partition)
        if len(keys) == 0:
            return Mutation(count=0, ts=collection.created_ts)
        if len(keys) <= SHORT_ROWS:
            parts = _encoded_deletes(collection, keys, below, partition_id)
        else:
            parts = await asyncio.to_thread(_encoded_deletes, collection, keys, below, partition_id)
        ts = await self._send(request, collection, partition_id, parts, True, deadline_s)
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
        request: RowsRequest | DeleteRequest,
        collection: Collection,
        partition_id: PartitionId,
        parts: Sequence[ShardWrite],
        replaces: bool,
        deadline_s: float,
    ) -> int:
        """The newest hybrid timestamp of the commits."""
        request_id = self._clock.token()
        reserve_s = min(RESOLVE_S_MAX, RESOLVE_SHARE * (deadline_s - self._clock.monotonic_s()))
        perhaps: set[int] = set()  # shards whose rows may have been written

        async def write(writer: WriterService, shards: Sequence[int], left_s: float) -> WriteReply:
            mine = tuple(part for part in parts if part.shard in shards)
            message = WriteRequest(
                collection_id=collection.id,
                partition_id=partition_id,
                schema_ts=collection.updated_ts,
                replaces=replaces,
                shards=mine,
                request_id=request_id,
                name=request.collection,
                deadline_s=left_s,
            )
            refused = False
            try:
                return await answered(writer.write(message), left_s)
            except MishardsError as error:
                refused = error.kind not in UNSURE
                raise
            finally:
                if not refused:
                    perhaps.update(shards)

        shards = [part.shard for part in parts]
        try:
            replies = await self._writers.ask_owners(collection, shards, write, deadline_s - reserve_s)
        except MishardsError as error:
            if not perhaps:
                raise
            return await self._resolved(request_id, shards, error, max(reserve_s, RESOLVE_S_MIN))
        return max(reply.ts for reply in replies)

    async def _resolved(self, request_id: str, shards: Sequence[int], error: MishardsError, wait_s: float) -> int:
        """The timestamp of a write that was done although `error` says otherwise; else the error, with what was written
        of it. Nothing more will be."""
        ids = {request_part(request_id, shard): shard for shard in shards}
        try:
            async with asyncio.timeout(wait_s):
                outcomes = await self._store.abort_requests(list(ids))
        except (MishardsError, TimeoutError):
            raise _written_partly(error, "whether it was written is not known") from error
        written = sorted(ids[id] for id, outcome in outcomes.items() if outcome.applied)
        if len(written) == len(shards):
            return max(outcome.ts for outcome in outcomes.values())
        if written:
            raise _written_partly(error, f"only its rows in shards {written} were written") from error
        raise MishardsError(error.kind, f"{error.message}; nothing was written", error.detail) from error


def _written_partly(error: MishardsError, so_far: str) -> MishardsError:
    """Clients repeat a call that was refused with RATE_LIMIT, by themselves: not one that has written."""
    kind = Kind.UNAVAILABLE if error.kind is Kind.RATE_LIMIT else error.kind
    return MishardsError(kind, f"{error.message}; {so_far}", PARTLY)


def _is_short(request: RowsRequest) -> bool:
    """Whether the rows are few and their vectors short, so that a thread would cost more than it spares the loop."""
    if request.rows > SHORT_ROWS:
        return False
    arrays = (column.values for column in request.columns.values() if isinstance(column.values, np.ndarray))
    return sum(array.nbytes for array in arrays) <= SHORT_BYTES


def _encoded_insert(
    collection: Collection, columns: dict[str, Column], rows: int, generated: np.ndarray | None
) -> tuple[pa.Array, list[ShardWrite]]:
    """The primary keys in the order of the rows, and the rows by shard."""
    batch = encode_rows(collection.schema, columns, rows, generated)
    keys = batch.column(collection.schema.primary.column)
    return keys, [
        ShardWrite(shard, seal_rows(batch if chosen is None else batch.take(pa.array(chosen)), collection.id, shard))
        for shard, chosen in _split(collection.shards, keys)
    ]


def _encoded_upsert(
    collection: Collection, columns: dict[str, Column], rows: int, generated: np.ndarray | None
) -> tuple[pa.Array, list[ShardWrite]]:
    """With generated keys the given ones name the rows to replace, and the new rows get fresh ones (as Milvus does)."""
    if generated is None:
        return _encoded_insert(collection, columns, rows, None)
    old = encode_keys(collection.schema, columns, rows)
    columns.pop(collection.schema.primary.name)
    new, inserts = _encoded_insert(collection, columns, rows, generated)
    by_shard = {part.shard: part for part in inserts}
    for part in _encoded_deletes(collection, old):
        known = by_shard.get(part.shard, part)
        by_shard[part.shard] = ShardWrite(part.shard, known.rows, part.deletes)
    return new, list(by_shard.values())


def _encoded_deletes(
    collection: Collection, keys: pa.Array, below: int = 0, partition_id: PartitionId = ANY_PARTITION
) -> list[ShardWrite]:
    """Tombstones of these keys by shard, all with the same reach."""
    return [
        ShardWrite(
            shard,
            deletes=memoryview(
                seal_tombstones(
                    tombstones_of(keys if chosen is None else keys.take(pa.array(chosen)), below, partition_id),
                    collection.id,
                    shard,
                )
            ),
        )
        for shard, chosen in _split(collection.shards, keys)
    ]


def _split(shards: int, keys: pa.Array) -> Iterator[tuple[int, np.ndarray | None]]:
    """Each shard that has rows and their positions, in the order of the keys, of a key that is there twice the last:
    as rows are stored, so that the writer can take them as they are. None: all of them in the order that they have."""
    in_order = ascending(keys)
    if shards == 1 and in_order:
        yield 0, None
        return
    order = np.arange(len(keys)) if in_order else last_of_each_key(keys)
    owners = shard_of(keys, shards)[order]
    for shard in range(shards):
        chosen = order[owners == shard]
        if len(chosen):
            yield shard, chosen


def _keys_alone(condition: Filter, schema: Schema) -> pa.Array | None:
    """The keys a filter selects when it speaks of nothing but the primary key and names a finite set; else None."""
    primary = schema.primary
    if condition.keys is None or condition.columns - {primary.column}:
        return None
    named = pc.unique(pa.array(condition.keys, arrow_type(primary)))
    table = pa.table({primary.column: named})
    return named.filter(pa.array(condition.mask(table)))
