"""What a cluster looks like right now, read from the metadata service and asked of every node.

Used by `status` and `topology`. The results are plain values: their JSON form is complete, `show` prints the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from mishards import plugins
from mishards.clock import SystemClock
from mishards.config import Settings, data_dir, metadata_url
from mishards.errors import MishardsError, SetupError, collection_not_found
from mishards.model import Collection, Delta, File, FileId, FileKind, Member, NodeId, Version
from mishards.ports import MetadataStore, Router
from mishards.wire.channel import Channel
from mishards.wire.messages import NodeStatus, Nothing
from mishards.wire.placement import Placement, segment_key, tail_key

ANSWER_S_MAX = 2.0
NOTHING_KNOWN = Version(0)

Ask = Callable[[Member], Awaitable[NodeStatus]]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded member and what it answered. `problem`: why there is no answer, then the numbers are 0."""

    id: str
    roles: tuple[str, ...]
    address: str
    http: str
    pid: int
    answers: bool
    state: str  # as the node says; "no answer"
    problem: str = ""
    uptime_s: float = 0.0
    memory_bytes: int = 0
    in_flight: int = 0
    applied: dict[str, int] = {}  # version by collection name


class CollectionView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    id: int
    database: str
    version: int
    loaded: bool
    replicas: int
    shards: int
    rows_stored: int  # rows of live files; those that later writes replaced count until they are compacted away
    segments: int
    fresh_files: int
    readers_at: int | None  # the lowest version applied by a reader that knows the collection


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    members: tuple[NodeView, ...]
    collections: tuple[CollectionView, ...]


class SegmentView(msgspec.Struct, frozen=True, kw_only=True):
    """`ready`: nodes that answer for it; `placed`: nodes that should, first choice first."""

    segment: int
    file: int
    shard: int
    partition: str
    rows: int
    dead: int
    bytes: int
    index: str  # index types, "exact" where there is none
    ready: tuple[str, ...]
    placed: tuple[str, ...]


class TailView(msgspec.Struct, frozen=True, kw_only=True):
    """The fresh rows of a shard. `ready`: its owners that have applied the newest version."""

    shard: int
    files: int
    rows: int
    bytes: int
    ready: tuple[str, ...]
    placed: tuple[str, ...]


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    collection: str
    id: int
    version: int
    loaded: bool
    replicas: int
    readers: tuple[NodeView, ...]
    segments: tuple[SegmentView, ...]
    tails: tuple[TailView, ...]


def look(settings: Settings) -> Survey:
    """The nodes and collections of the cluster that the settings point to."""

    async def run() -> Survey:
        async with opened(settings) as store:
            return await survey(store, ask_status)

    return asyncio.run(run())


def look_at(settings: Settings, name: str) -> Topology:
    """Which reader serves which segment of the collection of that name or alias. COLLECTION_NOT_FOUND."""
    router = plugins.load("router", settings.router)

    async def run() -> Topology:
        async with opened(settings) as store:
            return await topology(store, ask_status, router, name)

    return asyncio.run(run())


async def ask_status(member: Member) -> NodeStatus:
    """The member's own answer over the wire."""
    channel = Channel(member.address, SystemClock())
    try:
        answer: NodeStatus = await channel.call("node.status", Nothing(), ANSWER_S_MAX)
        return answer
    finally:
        channel.close()


async def survey(store: MetadataStore, ask: Ask) -> Survey:
    """Every recorded member with its answer, and every collection."""
    collections = await _collections(store)
    nodes = await _nodes(store, ask, collections)
    views = [_collection_view(c, await store.delta(c.id, NOTHING_KNOWN), nodes) for c in collections]
    return Survey(members=tuple(node.view for node in nodes), collections=tuple(views))


async def topology(store: MetadataStore, ask: Ask, router: Router, name: str) -> Topology:
    """Where the collection's segments and fresh rows are. Placement is computed over the readers that answer; the nodes
    themselves still count one in that died a moment ago."""
    collections = await _collections(store)
    found = next((c for c in collections if name == c.name or name in c.aliases), None)
    if found is None:
        raise collection_not_found(name)
    delta = await store.delta(found.id, NOTHING_KNOWN)
    nodes = await _nodes(store, ask, collections)
    return _topology(found, delta, [node for node in nodes if "reader" in node.view.roles], router)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[MetadataStore]:
    if not settings.metadata and not (data_dir(settings) / "metadata.db").exists():
        raise SetupError(f"no cluster has run in {data_dir(settings)} yet; name another one with --data or --metadata")
    url = metadata_url(settings)
    store: MetadataStore = plugins.load("metadata", plugins.scheme(url))(url, SystemClock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# ------------------------------------------------------------------------------------------------------------- reading


class _Node(NamedTuple):
    """A member, its answer if it gave one, and both as they are shown."""

    member: Member
    status: NodeStatus | None
    view: NodeView


async def _collections(store: MetadataStore) -> list[Collection]:
    heads = await store.heads()
    found = await store.collections([head.collection_id for head in heads])
    return sorted((collection for collection, _ in found), key=lambda collection: collection.name)


async def _nodes(store: MetadataStore, ask: Ask, collections: Sequence[Collection]) -> list[_Node]:
    names: dict[int, str] = {collection.id: collection.name for collection in collections}

    async def node(member: Member) -> _Node:
        try:
            status = await ask(member)
        except MishardsError as error:
            return _Node(member, None, _node_view(member, None, error.message, {}))
        applied = {names[id]: version for id, version in status.collections.items() if id in names}
        return _Node(member, status, _node_view(member, status, "", applied))

    members = sorted(await store.members(), key=lambda member: member.id)
    return list(await asyncio.gather(*map(node, members)))


def _node_view(member: Member, status: NodeStatus | None, problem: str, applied: dict[str, int]) -> NodeView:
    return NodeView(
        id=member.id,
        roles=member.roles,
        address=member.address,
        http=member.http,
        pid=member.pid,
        answers=status is not None,
        state="no answer" if status is None else status.state,
        problem=problem,
        uptime_s=0.0 if status is None else status.uptime_s,
        memory_bytes=0 if status is None else status.memory_bytes,
        in_flight=0 if status is None else status.in_flight,
        applied=applied,
    )


# ------------------------------------------------------------------------------------------------------------- judging


def _collection_view(collection: Collection, delta: Delta, nodes: Iterable[_Node]) -> CollectionView:
    live = _live(delta)
    at = [node.view.applied.get(collection.name) for node in nodes if "reader" in node.view.roles]
    return CollectionView(
        name=collection.name,
        id=collection.id,
        database=collection.database,
        version=delta.version,
        loaded=collection.loaded,
        replicas=collection.replicas,
        shards=collection.shards,
        rows_stored=sum(file.rows - file.dead for file in live if file.kind is not FileKind.TOMBSTONES),
        segments=sum(file.kind is FileKind.SEGMENT for file in live),
        fresh_files=sum(file.kind is not FileKind.SEGMENT for file in live),
        readers_at=min((version for version in at if version is not None), default=None),
    )


def _topology(collection: Collection, delta: Delta, readers: Sequence[_Node], router: Router) -> Topology:
    live = _live(delta)
    segments = [file for file in live if file.kind is FileKind.SEGMENT]
    placeable = [node.member for node in readers if node.status is not None and node.status.state == "ready"]
    placed: dict[str, tuple[NodeId, ...]] = {}
    if collection.loaded:
        placed = Placement(router).of(collection, lambda: segments, placeable, fingerprint=None)
    held = {node.view.id: set(node.status.held.get(collection.id, ())) for node in readers if node.status is not None}
    return Topology(
        collection=collection.name,
        id=collection.id,
        version=delta.version,
        loaded=collection.loaded,
        replicas=collection.replicas,
        readers=tuple(node.view for node in readers),
        segments=tuple(
            _segment_view(collection, file, held, placed.get(segment_key(file), ()))
            for file in sorted(segments, key=lambda file: (file.shard, file.segment_id))
        ),
        tails=tuple(
            _tail_view(collection, shard, delta, live, readers, placed.get(tail_key(collection.id, shard), ()))
            for shard in range(collection.shards)
        ),
    )


def _segment_view(
    collection: Collection, file: File, held: dict[str, set[FileId]], placed: tuple[NodeId, ...]
) -> SegmentView:
    names = {partition.id: partition.name for partition in collection.partitions}
    built = {part.index_id for part in file.parts if part.kind == "index"}
    return SegmentView(
        segment=file.segment_id,
        file=file.id,
        shard=file.shard,
        partition=names.get(file.partition_id, str(file.partition_id)),
        rows=file.rows,
        dead=file.dead,
        bytes=file.bytes,
        index=", ".join(index.type for index in collection.indexes if index.id in built) or "exact",
        ready=tuple(node for node, files in held.items() if file.id in files),
        placed=placed,
    )


def _tail_view(
    collection: Collection,
    shard: int,
    delta: Delta,
    live: Iterable[File],
    readers: Iterable[_Node],
    placed: tuple[NodeId, ...],
) -> TailView:
    fresh = [file for file in live if file.shard == shard and file.kind is not FileKind.SEGMENT]
    current = {node.view.id for node in readers if node.view.applied.get(collection.name, -1) >= delta.version}
    return TailView(
        shard=shard,
        files=len(fresh),
        rows=sum(file.rows for file in fresh if file.kind is FileKind.ROWS),
        bytes=sum(file.bytes for file in fresh),
        ready=tuple(node for node in placed if node in current),
        placed=placed,
    )


def _live(delta: Delta) -> list[File]:
    return [file for file in delta.added if file.live_at(delta.version)]
