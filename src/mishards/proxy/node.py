"""The proxy role ("Mishards node"): stateless; breaks searches up, routes and merges them, forwards writes (P7, P17).

`ProxyNode` assembles its parts and implements `ProxyService`, the face that doors depend on. It keeps caches only; any
number of proxies may run side by side behind one port or load balancer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from mishards.clock import Clock, hybrid
from mishards.config import ProxySettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.metadata.snapshots import MARK
from mishards.model import Collection, CollectionId, DataType, File, FileKind, Member, Version
from mishards.ports import IndexKind, MetadataStore
from mishards.proxy.catalog import Catalog, check_database, read_only, readable_partitions
from mishards.proxy.compactions import Compactions
from mishards.proxy.defining import checked
from mishards.proxy.querying import Querying
from mishards.proxy.readers import Readers
from mishards.proxy.reading import ReadPath
from mishards.proxy.requests import (
    DeleteRequest,
    Flushed,
    IndexProgress,
    Mutation,
    QueryRequest,
    QueryResult,
    RowsRequest,
    SearchRequest,
    SearchResult,
)
from mishards.proxy.scatter import Scatter
from mishards.proxy.searching import Searching
from mishards.proxy.snapshots import Snapshots
from mishards.proxy.telling import Telling
from mishards.proxy.versions import Versions
from mishards.proxy.writers import Writers, answered
from mishards.proxy.writing import Writing
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.wire.definitions import (
    AnyDefinition,
    DefineRequest,
    Definition,
    DropAlias,
    LoadCollection,
    LoadPartitions,
    ReleaseCollection,
    ReleasePartitions,
)
from mishards.wire.membership import Membership
from mishards.wire.messages import FlushRequest
from mishards.wire.ownership import Ownership
from mishards.wire.peers import Peers
from mishards.wire.placement import Placement

Q = TypeVar("Q", SearchRequest, QueryRequest)
R = TypeVar("R")

DEFINE_S_MAX = 30.0
FLUSH_S_MAX = 300.0


class ProxyNode:
    """Implements `proxy.requests.ProxyService`."""

    def __init__(
        self,
        mirror: Mirror,
        store: MetadataStore,
        membership: Membership,
        peers: Peers,
        ownership: Ownership,
        placement: Placement,
        ids: IdBlocks,
        index_kind: Callable[[str], IndexKind],
        settings: ProxySettings,
        clock: Clock,
    ) -> None:
        self._mirror = mirror
        self._membership = membership
        self._index_kind = index_kind
        self._settings = settings
        self._clock = clock
        self._catalog = Catalog(mirror)
        self._readers = Readers(membership, peers, clock, settings.switch_wait_s)
        self._writers = Writers(membership, peers, ownership, clock)
        self._read_path = read_path = ReadPath(
            self._catalog,
            Versions(mirror, clock, settings.bounded_staleness_s),
            self._readers,
            Scatter(self._readers, peers, Telling(mirror, peers), clock, settings.retry_share, settings.hedge_share),
            membership,
            placement,
            clock,
        )
        self._searching = Searching(
            read_path, index_kind, clock, settings.result_bytes_direct, settings.result_bytes_max
        )
        self._querying = Querying(read_path, settings.result_bytes_max)
        self._writing = Writing(self._catalog, self._querying, self._writers, ids, store, clock)
        self.compactions = Compactions(store, self._catalog, ids)
        self.snapshots = Snapshots(store, self._catalog, ids, clock)
        self.in_flight = 0

    async def start(self) -> None:
        await self._readers.start()

    async def stop(self) -> None:
        await self._readers.stop()

    # ------------------------------------------------------------------------------------------------- definitions

    async def collection(self, database: str, name: str) -> Collection:
        return (await self._catalog.fresh(database, name)).collection

    async def collections(self, database: str) -> list[Collection]:
        check_database(database)
        await self._catalog.refresh_if_possible()
        return [manifest.collection for manifest in self._catalog.all(database)]

    async def define(self, definition: AnyDefinition) -> Collection | None:
        check_database(definition.database)
        if not isinstance(definition, DropAlias) and MARK in definition.collection:
            return await self._define_snapshot(definition)
        definition = await checked(definition, self._catalog, self._index_kind)
        request = DefineRequest(definition, self._clock.token())
        deadline_s = self._clock.monotonic_s() + DEFINE_S_MAX
        reply = await self._writers.ask_any(lambda writer: answered(writer.define(request)), deadline_s)
        await self._catalog.refresh_if_possible()
        return reply.collection

    async def _define_snapshot(self, definition: Definition) -> Collection:
        """Snapshots are read without being loaded, so loading one is a success; nothing else can be done to it."""
        if not isinstance(definition, LoadCollection | LoadPartitions | ReleaseCollection | ReleasePartitions):
            raise read_only(definition.collection)
        return (await self._catalog.fresh(definition.database, definition.collection)).collection

    # ------------------------------------------------------------------------------------------------------- data

    async def write(self, request: RowsRequest) -> Mutation:
        with self._admitted():
            return await self._writing.write(request)

    async def delete(self, request: DeleteRequest) -> Mutation:
        with self._admitted():
            return await self._writing.delete(request)

    async def search(self, request: SearchRequest) -> SearchResult:
        with self._admitted():
            return await self._read(request, self._searching.search)

    async def query(self, request: QueryRequest) -> QueryResult:
        with self._admitted():
            return await self._read(request, self._querying.query)

    async def _read(self, request: Q, read: Callable[[Q], Awaitable[R]]) -> R:
        """The answer; asked once more if the collection was dropped meanwhile and another one has its name by now."""
        ends_s = self._clock.monotonic_s() + request.timeout_s
        try:
            return await read(request)
        except MishardsError as error:
            left_s = ends_s - self._clock.monotonic_s()
            named = self._mirror.find(request.database, request.collection)
            if error.kind is not Kind.COLLECTION_NOT_FOUND or named is None or left_s <= 0:
                raise
        return await read(replace(request, timeout_s=left_s))

    async def flush(self, database: str, names: Sequence[str]) -> list[Flushed]:
        flushed = []
        deadline_s = self._clock.monotonic_s() + FLUSH_S_MAX
        for name in names:
            collection = (await self._catalog.writable(database, name)).collection
            request = FlushRequest(collection.id, FLUSH_S_MAX)
            replies = await self._writers.ask_owners(
                collection,
                range(collection.shards),
                lambda writer, shards, left_s, request=request: writer.flush(request),  # type: ignore[misc]
                deadline_s,
            )
            files = {file_id for reply in replies for file_id in reply.files}
            flushed.append(Flushed(collection, max(reply.ts for reply in replies), tuple(sorted(files))))
        await self._catalog.refresh_if_possible()
        return flushed

    async def flushed(self, segments: Sequence[int]) -> bool:
        """Always: `flush` answers only when nothing is fresh any more."""
        return True

    # ------------------------------------------------------------------------------------------------------ state

    async def row_count(self, database: str, name: str, partition: str = "") -> int:
        manifest = await self._catalog.fresh(database, name)
        wanted = None
        if partition:
            known = manifest.collection.partition(partition)
            if known is None:
                raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={partition}]")
            wanted = known.id
        partitions = {p.id for p in manifest.collection.partitions}
        return sum(
            file.rows - file.dead
            for file in _data(manifest)
            if file.partition_id in partitions and wanted in (None, file.partition_id)
        )

    async def load_progress(self, database: str, name: str, partitions: Sequence[str] = ()) -> int:
        manifest = await self._catalog.fresh(database, name)
        collection = manifest.collection
        if not collection.loaded:
            raise MishardsError(Kind.COLLECTION_NOT_LOADED, f"collection not loaded[collection={name}]")
        readable = readable_partitions(collection, partitions)
        if manifest.frozen:  # a snapshot is loaded when it is asked for
            return 100
        segments = [
            file.id for file in _data(manifest) if file.kind is FileKind.SEGMENT and file.partition_id in readable
        ]
        if not self._membership.of("reader"):
            return 0
        if not segments:
            return 100
        return 100 * self._readers.ready_count(collection.id, segments) // len(segments)

    async def index_progress(self, database: str, name: str, index_id: int) -> IndexProgress:
        manifest = await self._catalog.fresh(database, name)
        collection = manifest.collection
        index = next((index for index in collection.indexes if index.id == index_id), None)
        if index is None:
            raise MishardsError(Kind.INDEX_NOT_FOUND, f"index not found[collection={name}]")
        field = collection.schema.by_id(index.field_id)
        segments = [file for file in _data(manifest) if file.kind is FileKind.SEGMENT]
        total = sum(file.rows for file in segments)
        if field is None or field.type is not DataType.FLOAT_VECTOR:
            return IndexProgress(total, total)
        kind = self._index_kind(index.type)
        missing = sum(
            file.rows
            for file in segments
            if file.part("index", field.id, index.id) is None and kind.worthwhile(file.rows, field.dim)
        )
        return IndexProgress(total, total - missing)

    async def segments(self, database: str, name: str) -> list[File]:
        manifest = await self._catalog.fresh(database, name)
        return [file for file in _data(manifest) if file.kind is FileKind.SEGMENT]

    async def fresh_ts(self) -> int:
        return hybrid(self._clock.unix_ms())

    def layouts_in_use(self) -> dict[CollectionId, Version]:
        return self._read_path.layouts_in_use()

    def members(self) -> Sequence[Member]:
        return self._membership.members()

    def unhealthy(self) -> list[str]:
        reasons = []
        if not self._readers.usable():
            reasons.append("no reader is known")
        if not self._membership.of("writer"):
            reasons.append("no writer is known")
        return reasons

    def metrics(self) -> Iterator[Sample]:
        yield c.PROXY_IN_FLIGHT.of(self.in_flight)
        yield c.PROXY_IN_FLIGHT_LIMIT.of(self._settings.in_flight_max)

    def _admitted(self) -> _Admission:
        limit = self._settings.in_flight_max
        if self.in_flight >= limit:
            raise MishardsError(Kind.RATE_LIMIT, f"proxy works on {self.in_flight} requests, its limit is {limit}")
        return _Admission(self)


class _Admission:
    """Counts a request in and out (P15)."""

    def __init__(self, node: ProxyNode) -> None:
        self._node = node

    def __enter__(self) -> None:
        self._node.in_flight += 1

    def __exit__(self, *failure: object) -> None:
        self._node.in_flight -= 1


def _data(manifest: Manifest) -> list[File]:
    """The live files that hold rows."""
    return [file for file in manifest.live() if file.kind is not FileKind.TOMBSTONES]
