"""The proxy's public face: what a door asks and gets, in domain terms (no protobuf, no HTTP).

`ProxyService` is implemented by `proxy.node.ProxyNode`; doors depend on it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.metadata.compactions import Compaction
from mishards.model import Collection, CollectionId, Consistency, File, Member
from mishards.ports import Pin
from mishards.schema.columns import Column
from mishards.wire.definitions import AnyDefinition


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What searches and queries share."""

    collection: str  # name or alias
    database: str = "default"
    partitions: tuple[str, ...] = ()  # () means all
    filter: str = ""
    template: Mapping[str, Any] = {}
    output: tuple[str, ...] = ()  # field names, dynamic keys, "*"
    consistency: Consistency | None = None  # None: the collection's
    guarantee_ts: int = 0  # hybrid; meaning as in Milvus: 0 strong, 1 eventually, 2 bounded, else at least this
    timeout_s: float = 60.0


class SearchRequest(Reading, frozen=True, kw_only=True):
    queries: NDArray[np.float32]  # (nq, dim)
    limit: int
    offset: int = 0
    field: str = ""  # "" means the only vector field
    metric: str = ""  # "" means the index's; another one is refused
    params: Mapping[str, Any] = {}  # ef, nprobe, ... as sent
    radius: float | None = None
    range_filter: float | None = None
    round_decimal: int = -1


class QueryRequest(Reading, frozen=True, kw_only=True):
    limit: int | None = None
    offset: int = 0
    count: bool = False  # output_fields == ["count(*)"]


class RowsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An insert or upsert. `schema_ts` 0: the client did not say."""

    kind: Literal["insert", "upsert"]
    collection: str
    columns: Mapping[str, Column]  # by field name; `$meta` for the dynamic field
    rows: int
    database: str = "default"
    partition: str = ""
    schema_ts: int = 0
    timeout_s: float = 60.0


class DeleteRequest(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    filter: str
    template: Mapping[str, Any] = {}
    database: str = "default"
    partition: str = ""
    timeout_s: float = 60.0


class Mutation(msgspec.Struct, frozen=True, kw_only=True):
    """What a write did. `keys`: primary keys of the rows written (int64 array or strings), empty for a delete."""

    count: int
    ts: int  # hybrid timestamp of its commit
    keys: Sequence[int] | Sequence[str] | NDArray[np.int64] = ()


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Hits of all queries, concatenated. Row i of `rows` belongs to hit i."""

    collection: Collection
    counts: NDArray[np.int32]  # (nq,)
    scores: NDArray[np.float32]  # (n,)
    keys: NDArray[np.int64] | list[str]  # (n,)
    output: tuple[str, ...]  # the request's, "*" expanded; may hold dynamic keys
    rows: pa.RecordBatch | None  # columns named Field.column; the `$meta` column stands in for dynamic keys
    ts: int


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in primary key order; with `count` asked, `rows` is None and `count` the answer."""

    collection: Collection
    output: tuple[str, ...]
    rows: pa.RecordBatch | None
    count: int
    ts: int


class Flushed(msgspec.Struct, frozen=True):
    collection: Collection
    ts: int
    segments: tuple[int, ...]


class IndexProgress(msgspec.Struct, frozen=True):
    total: int
    indexed: int

    @property
    def pending(self) -> int:
        return self.total - self.indexed


class CompactionState(msgspec.Struct, frozen=True):
    """`merged`: the segments that were made since it was asked for, of those in their `sources`. `executing`: the tasks
    that builders have claimed right now, at least 1 until all is done."""

    compaction: Compaction
    executing: int
    merged: Sequence[File]

    @property
    def done(self) -> bool:
        return bool(self.compaction.done)


class SnapshotService(Protocol):
    """Snapshots, named within their collection (P13). COLLECTION_NOT_FOUND; PARAMETER_INVALID for an unknown name."""

    async def create(self, database: str, collection: str, name: str, description: str) -> Pin:
        """UNEXPECTED when the collection has one of that name."""
        ...

    async def drop(self, database: str, collection: str, name: str) -> None:
        """A missing one is a success."""
        ...

    async def list(self, database: str, collection: str = "") -> list[Pin]:
        """Of one collection, or of all."""
        ...

    async def describe(self, database: str, collection: str, name: str) -> Pin: ...

    async def restore(self, database: str, collection: str, name: str, target: str) -> Collection:
        """The new collection, not loaded, complete."""
        ...

    async def hold(self, database: str, collection: str, name: str, ttl_s: float) -> CollectionId:
        """Keep the files of a snapshot for a time, also if it is dropped; what `release` wants."""
        ...

    async def release(self, id: int) -> None:
        """Idempotent."""
        ...


class CompactionService(Protocol):
    """Compactions that clients ask for."""

    async def start(self, database: str, collection: str) -> int:
        """Its id, above 0. COLLECTION_NOT_FOUND; METADATA_UNAVAILABLE."""
        ...

    async def state(self, id: int) -> CompactionState:
        """PARAMETER_INVALID for one that was never asked for, or more than a day ago."""
        ...

    async def merged(self, database: str, collection: str) -> list[File]:
        """The segments known that were made of others. COLLECTION_NOT_FOUND."""
        ...


class ProxyService(Protocol):
    """Every method raises MishardsError and nothing else."""

    @property
    def compactions(self) -> CompactionService: ...

    @property
    def snapshots(self) -> SnapshotService: ...

    async def collection(self, database: str, name: str) -> Collection:
        """The definition by name or alias, as fresh as the metadata service. COLLECTION_NOT_FOUND."""
        ...

    async def collections(self, database: str) -> list[Collection]: ...

    async def define(self, definition: AnyDefinition) -> Collection | None:
        """DDL through a writer; afterwards this proxy sees it."""
        ...

    async def write(self, request: RowsRequest) -> Mutation: ...

    async def delete(self, request: DeleteRequest) -> Mutation: ...

    async def search(self, request: SearchRequest) -> SearchResult: ...

    async def query(self, request: QueryRequest) -> QueryResult: ...

    async def flush(self, database: str, names: Sequence[str]) -> list[Flushed]: ...

    async def flushed(self, segments: Sequence[int]) -> bool: ...

    async def row_count(self, database: str, name: str, partition: str = "") -> int:
        """Live rows as listed (deletes not yet materialised are still counted, as in Milvus)."""
        ...

    async def load_progress(self, database: str, name: str, partitions: Sequence[str] = ()) -> int:
        """Per cent of the segments that are ready on readers. COLLECTION_NOT_LOADED / PARTITION_NOT_LOADED."""
        ...

    async def index_progress(self, database: str, name: str, index_id: int) -> IndexProgress: ...

    async def segments(self, database: str, name: str) -> list[File]:
        """The live segments."""
        ...

    async def fresh_ts(self) -> int:
        """A hybrid timestamp of now."""
        ...

    def members(self) -> Sequence[Member]:
        """The cluster as this proxy sees it."""
        ...

    def unhealthy(self) -> list[str]:
        """Why this proxy cannot serve; empty when it can (some reader and some writer are reachable)."""
        ...
