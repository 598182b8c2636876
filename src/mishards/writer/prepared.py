"""A write request, checked against its collection and decoded, ready to be committed with others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mishards.errors import Kind, MishardsError, invalid, renamed
from mishards.model import Collection, CollectionId
from mishards.schema.keys import physical_schema
from mishards.segment.fresh import decode_rows, decode_tombstones
from mishards.segment.keys import ascending
from mishards.segment.resolve import WriteOp
from mishards.wire.messages import ANY_PARTITION, ShardWrite, WriteRequest, request_part
from mishards.writer.shard import Shard


class StoredRows(NamedTuple):
    """A rows object that lies in storage before its commit: under which path, and which nonce's name is in it (P1)."""

    path: str
    nonce: str


@dataclass(frozen=True, slots=True, eq=False)
class PreparedWrite:
    """What one request changes, by shard; the columns are views into the request.

    `objects`: the rows as they came, where they can be stored so: sorted by primary key, each key once. `stored`: those
    that are in storage and in no commit request yet. `ids`: what each shard's part is recorded under, so that it takes
    effect once."""

    collection_id: CollectionId
    ops: dict[Shard, WriteOp]
    bytes: int
    has_rows: bool
    ends_s: float  # monotonic time of its deadline
    ids: dict[Shard, str] = field(default_factory=dict)
    objects: dict[Shard, memoryview] = field(default_factory=dict)
    stored: dict[Shard, StoredRows] = field(default_factory=dict)
    partition_id: int = ANY_PARTITION  # of its rows
    name: str = ""  # by which the client calls the collection
    defined_ts: int = 0  # `updated_ts` of the definition that has both


def request_bytes(request: WriteRequest) -> int:
    return sum(len(part.rows) + len(part.deletes) for part in request.shards)


def prepare(request: WriteRequest, collection: Collection, ends_s: float) -> PreparedWrite:
    """The request, decoded. Checksums are verified: for large requests call it in a thread.

    SCHEMA_MISMATCH when the rows' columns are not the collection's, in name, type and order: those of a group become
    one table, where one that does not fit would spoil the others. Their `schema_ts` alone says nothing: it grows with
    every definition, also with those that change no field, such as a load. PARTITION_NOT_FOUND, COLLECTION_NOT_FOUND if
    it has another name by now, PARAMETER_INVALID."""
    if not collection.is_called(request.name):
        raise renamed(request.name, collection.database)
    ops = {Shard(collection.id, part.shard): _op(part, request, collection) for part in request.shards}
    has_rows = any(op.rows is not None for op in ops.values())
    if has_rows and all(partition.id != request.partition_id for partition in collection.partitions):
        raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={request.partition_id}]")
    pk = collection.schema.primary.column
    objects = {
        shard: part.rows
        for (shard, op), part in zip(ops.items(), request.shards, strict=True)
        if op.rows is not None and ascending(op.rows.column(pk))
    }
    ids = {shard: request_part(request.request_id, shard.number) for shard in ops}
    return PreparedWrite(
        collection.id,
        ops,
        request_bytes(request),
        has_rows,
        ends_s,
        ids,
        objects,
        partition_id=request.partition_id,
        name=request.name,
        defined_ts=collection.updated_ts,
    )


def _op(part: ShardWrite, request: WriteRequest, collection: Collection) -> WriteOp:
    if not 0 <= part.shard < collection.shards:
        raise invalid(
            f"shard {part.shard} does not exist in collection '{collection.name}' ({collection.shards} shards)"
        )
    rows = decode_rows(part.rows) if part.rows else None
    if rows is not None and rows.schema != physical_schema(collection.schema):
        raise MishardsError(
            Kind.SCHEMA_MISMATCH,
            f"rows of columns {rows.schema.names} do not fit the schema of collection '{collection.name}'",
        )
    deletes = decode_tombstones(part.deletes) if part.deletes else None
    return WriteOp(rows, request.partition_id, request.replaces, deletes)
