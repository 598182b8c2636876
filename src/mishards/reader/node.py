"""The reader role: holds the files placed on it and answers exactly the files it is asked for (P8, P9, P11).

Start: clear the cache, then follow placement. Stop: finish what is in flight, then drop everything; nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from mishards.clock import Clock
from mishards.config import ReaderSettings
from mishards.errors import Kind, MishardsError
from mishards.filter import weight
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, CollectionId, DataType, File, FileId, Schema, Version
from mishards.ports import IndexKind, Matrix, Storage
from mishards.reader.cache import DiskCache
from mishards.reader.columns import take_rows
from mishards.reader.conditions import Conditions
from mishards.reader.evaluate import Condition, Question, cost_s, search
from mishards.reader.holding import Holdings
from mishards.reader.hosted import Hosted
from mishards.reader.joints import NO_PLAN, Group, Plan
from mishards.reader.loading import Loader
from mishards.reader.nursery import Nursery
from mishards.reader.pools import in_pool
from mishards.reader.scan import count, scan
from mishards.reader.source import Source
from mishards.segment.ipc import to_stream
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.wire import messages as m
from mishards.wire.hits import Hits, gather, pack
from mishards.wire.membership import Membership
from mishards.wire.placement import Placement

log = structlog.get_logger(__name__)
T = TypeVar("T")

INLINE_S = 0.001  # shorter work runs on the loop: handing it to a thread costs 0.3 ms (measured)
SPLIT_S = 0.001  # ... of many queries are split over the pool, each piece at least so long
INLINE_HITS = 2_000  # more are turned into an answer in the pool
INLINE_FILTER_WEIGHT = 2_000
HOLDS_MAX = 5  # tries to have all files of a request in memory
NOTHING = memoryview(b"")


class ReaderNode:
    """Implements `wire.services.ReaderService`."""

    def __init__(
        self,
        node_id: str,
        storage: Storage,
        mirror: Mirror,
        membership: Membership,
        placement: Placement,
        index_kind: Callable[[str], IndexKind],
        settings: ReaderSettings,
        clock: Clock,
        cache_dir: Path,
        threads: int,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._mirror = mirror
        self._threads = threads
        self._search_pool = ThreadPoolExecutor(threads, "search")
        self._load_pool = ThreadPoolExecutor(2, "load")
        self._cache = DiskCache(storage, cache_dir, settings.cache_bytes_max, self._load_pool)
        self._loader = Loader(self._cache, self._load_pool, index_kind, settings.concurrent_loads_max)
        self._holdings = Holdings(
            node_id, storage, mirror, membership, placement, self._loader, settings.memory_bytes_max, clock
        )
        self._conditions = Conditions()
        self._nursery = Nursery()
        self.in_flight = 0

    async def start(self) -> None:
        self._cache.clear()
        await self._holdings.start()

    async def stop(self) -> None:
        """Requests in flight are answered first; later ones are told to go elsewhere."""
        await self._holdings.stop()
        await self._nursery.stop()
        await self._cache.stop()
        await asyncio.to_thread(self._search_pool.shutdown)
        await asyncio.to_thread(self._load_pool.shutdown)

    # ---------------------------------------------------------------------------------------------------- service

    async def search(self, request: m.SearchPart) -> m.SearchHits:
        quick = self.search_at_once(request)
        if quick is not None:
            return quick
        async with self._admitted(request.deadline_s):
            hosted, sources = await self._sources(request)
            collection = hosted.manifest.collection
            schema = collection.schema
            question = _question(collection, request, await self._condition(request, collection))
            plan = _plan(hosted, sources, question)
            if weight(request.filter, request.template) <= INLINE_FILTER_WEIGHT and _is_short(sources, question, plan):
                hits, counts = search(sources, question, plan.groups)
            else:
                hits, counts = await self._search(sources, question, plan.groups)
            self._nursery.tend(hosted.joints, question.interim, sources, plan)
            if len(hits) <= INLINE_HITS:
                return self._answer(request, schema, sources, hits, counts)
            return await self._in_pool(lambda: self._answer(request, schema, sources, hits, counts))

    def search_at_once(self, request: m.SearchPart) -> m.SearchHits | None:
        """The answer of a short search over files that are all here; None when there is anything to wait for."""
        if self.in_flight >= self._settings.in_flight_max:
            return None
        try:
            hosted = self._holdings.hosted(CollectionId(request.collection_id))
        except MishardsError:
            return None
        if not hosted.manifest.confirms(request.version, request.head):
            return None
        sources = hosted.sources_now(request.files, request.version, self._clock.monotonic_s(), request.expired_ts)
        if sources is None or weight(request.filter, request.template) > INLINE_FILTER_WEIGHT:
            return None
        collection = hosted.manifest.collection
        question = _question(collection, request, self._conditions.of(request.filter, request.template, collection))
        plan = _plan(hosted, sources, question)
        if not _is_short(sources, question, plan):
            return None
        hits, counts = search(sources, question, plan.groups)
        self._nursery.tend(hosted.joints, question.interim, sources, plan)
        return self._answer(request, collection.schema, sources, hits, counts)

    def _answer(
        self, request: m.SearchPart, schema: Schema, sources: list[Source], hits: Hits, counts: NDArray[np.int32]
    ) -> m.SearchHits:
        rows = NOTHING
        if request.output:
            rows = to_stream(take_rows(sources, hits.sources, hits.rows, schema, request.output))
        text_keys = schema.primary.type is DataType.VARCHAR
        return pack(hits, counts, rows, text_keys, _covered(sources), self.in_flight)

    async def query(self, request: m.QueryPart) -> m.QueryRows:
        async with self._admitted(request.deadline_s):
            hosted, sources = await self._sources(request)
            schema = hosted.manifest.collection.schema
            condition = await self._condition(request, hosted.manifest.collection)
            if request.count:
                total = await self._in_pool(lambda: count(sources, condition))
                return m.QueryRows(NOTHING, total, _covered(sources), self.in_flight)
            rows = await self._in_pool(
                lambda: to_stream(
                    scan(
                        sources,
                        condition,
                        schema,
                        request.output,
                        request.limit,
                        request.after_key,
                        request.with_places,
                    )
                )
            )
            return m.QueryRows(rows, 0, _covered(sources), self.in_flight)

    async def fetch(self, request: m.FetchPart) -> m.FetchRows:
        async with self._admitted(request.deadline_s):
            files = np.frombuffer(request.files, np.int64)
            positions = np.frombuffer(request.positions, np.int64)
            ids, which = np.unique(files, return_inverse=True)
            hosted = await self._hosted(request.collection_id)
            records = [hosted.manifest.files.get(FileId(int(i))) for i in ids]
            named = [record for record in records if record is not None]
            if len(named) < len(ids):
                raise _gone(ids.tolist(), request.version)
            await self._hold(hosted, named)
            schema = hosted.manifest.collection.schema
            sources = [hosted.sources([file], request.version, self._clock.monotonic_s())[0] for file in named]
            rows_of = positions + np.array([hosted.start_of(file) for file in named], np.int64)[which]
            numbers = which.astype(np.int32)
            rows = await self._in_pool(lambda: to_stream(take_rows(sources, numbers, rows_of, schema, request.output)))
            return m.FetchRows(rows)

    async def ready(self, request: m.ReadyRequest) -> m.ReadyState:
        return await self._holdings.ready(request.since, request.wait_s, self.in_flight)

    def held(self) -> dict[int, tuple[FileId, ...]]:
        """Ready segments by collection, for status."""
        return self._holdings.segments()

    def applied(self) -> dict[int, int]:
        return self._holdings.applied()

    @property
    def memory_bytes(self) -> int:
        return self._holdings.bytes

    def metrics(self) -> Iterator[Sample]:
        yield c.READER_IN_FLIGHT.of(self.in_flight)
        yield c.READER_IN_FLIGHT_LIMIT.of(self._settings.in_flight_max)
        yield c.READER_MEMORY.of(self.memory_bytes)
        yield c.READER_MEMORY_LIMIT.of(self._settings.memory_bytes_max)
        yield c.READER_SEGMENTS.of(sum(len(ids) for ids in self.held().values()))
        yield c.READER_MISSING.of(self._holdings.missing)
        applied = self.applied()
        for manifest in self._mirror.manifests():
            collection = manifest.collection
            if collection.id in applied:
                lag = max(0, manifest.version - applied[collection.id])
                yield c.READER_LAG.of(lag, collection.database, collection.name)

    # --------------------------------------------------------------------------------------------------- the parts

    def _admitted(self, deadline_s: float) -> _Admission:
        if self.in_flight >= self._settings.in_flight_max:
            limit = self._settings.in_flight_max
            raise MishardsError(Kind.RATE_LIMIT, f"reader works on {self.in_flight} requests, its limit is {limit}")
        return _Admission(self, deadline_s)

    async def _sources(self, request: m.SearchPart | m.QueryPart) -> tuple[Hosted, list[Source]]:
        """The named files at the version, held and applied (P8)."""
        collection_id, version = request.collection_id, request.version
        hosted = await self._hosted(collection_id)
        if hosted.manifest.version < version or hosted.manifest.denies(version, request.head):
            await self._refresh(known=hosted.manifest.version)
            hosted = await self._hosted(collection_id)
        if hosted.manifest.version >= version and not hosted.manifest.confirms(version, request.head):
            await self._mirror.verify(CollectionId(collection_id), version, request.head)
            hosted = await self._hosted(collection_id)
        if hosted.manifest.denies(version, request.head):
            raise MishardsError(Kind.GONE, f"commit {request.head} of version {version} is lost", str(version))
        if hosted.manifest.version < version:
            raise MishardsError(Kind.NOT_CAUGHT_UP, f"version {version} asked, {hosted.manifest.version} known")
        if not hosted.manifest.confirms(version, request.head):  # of what was forgotten meanwhile, or not: who knows
            raise MishardsError(Kind.NOT_CAUGHT_UP, f"commit {request.head} of version {version} is not known here")
        if hosted.applied < version:
            await hosted.advance()
        named = self._named(hosted, version, request.files)
        await self._hold(hosted, named)
        self._named(hosted, version, request.files)  # forgotten meanwhile, their tombstones may be forgotten, too
        now_s = self._clock.monotonic_s()
        frozen = hosted.sources_now(request.files, version, now_s, request.expired_ts)
        return hosted, frozen or hosted.sources(named, version, now_s, request.expired_ts)

    def _named(self, hosted: Hosted, version: int, files: tuple[int, ...]) -> list[File]:
        """The records of the files. GONE."""
        known = hosted.manifest.files
        named: list[File] = []
        for file_id in files:
            file = known.get(FileId(file_id))
            if file is None:
                raise _gone([file_id], version)
            named.append(file)
        return named

    async def _hosted(self, collection_id: int) -> Hosted:
        """NOT_LOADED only when the metadata service says so too. The id may be that of a pin: its view is read."""
        id = CollectionId(collection_id)
        try:
            return self._holdings.hosted(id)
        except MishardsError:
            await self._refresh(pin=None if self._mirror.get(id) else id)
            return self._holdings.hosted(id)

    async def _refresh(self, known: Version | None = None, pin: CollectionId | None = None) -> None:
        """While the metadata service is down another reader may know more: NOT_CAUGHT_UP, not the outage (P8, I17).
        Its detail is the version `known`, so that who asks may tell what happened since."""
        try:
            await self._mirror.refresh()
            if pin is not None and self._mirror.get(pin) is None:
                await self._mirror.pinned.load(pin)
        except MishardsError as error:
            if error.kind is Kind.METADATA_UNAVAILABLE:
                detail = "" if known is None else str(known)
                raise MishardsError(Kind.NOT_CAUGHT_UP, f"behind, and {error.message}", detail) from error
            raise

    async def _hold(self, hosted: Hosted, files: list[File]) -> None:
        """All files held at once; loading one may push another out."""
        for _ in range(HOLDS_MAX):
            if all(hosted.holds(file) for file in files):
                return
            await self._holdings.load(hosted, files)
        raise MishardsError(Kind.MEMORY_LIMIT, f"{len(files)} files do not stay in memory together")

    async def _condition(self, request: m.SearchPart | m.QueryPart, collection: Collection) -> Condition:
        """The compiled filter; a long one is compiled in the pool."""
        if weight(request.filter, request.template) <= INLINE_FILTER_WEIGHT:
            return self._conditions.of(request.filter, request.template, collection)
        return await self._in_pool(lambda: Condition.of(request.filter, request.template, collection.schema))

    async def _search(
        self, sources: list[Source], question: Question, groups: Sequence[Group]
    ) -> tuple[Hits, np.ndarray]:
        nq = len(question.queries)
        pieces = min(nq, self._threads, int(cost_s(sources, question, groups) / SPLIT_S))
        if pieces < 2:
            return await self._in_pool(lambda: search(sources, question, groups))
        chunks = np.array_split(np.arange(nq), pieces)
        answers = await asyncio.gather(
            *(
                self._in_pool(lambda rows=rows: search(sources, _only(question, rows[0], rows[-1] + 1), groups))  # type: ignore[misc]
                for rows in chunks
            )
        )
        parts = [_shifted(hits, int(rows[0])) for (hits, _), rows in zip(answers, chunks, strict=True)]
        return gather(parts, question.text_keys), np.concatenate([counts for _, counts in answers])

    async def _in_pool(self, job: Callable[[], T]) -> T:
        return await in_pool(self._search_pool, job)


class _Admission:
    """Counts a request in and out and ends it at its deadline."""

    def __init__(self, node: ReaderNode, deadline_s: float) -> None:
        self._node = node
        self._deadline_s = deadline_s
        self._timeout = asyncio.timeout(deadline_s)

    async def __aenter__(self) -> None:
        self._node.in_flight += 1
        await self._timeout.__aenter__()

    async def __aexit__(self, *failure: object) -> None:
        self._node.in_flight -= 1
        try:
            await self._timeout.__aexit__(*failure)  # type: ignore[arg-type]
        except TimeoutError as error:
            raise MishardsError(Kind.DEADLINE, f"not answered within {self._deadline_s:g} s") from error


def _matrix(buffer: memoryview, dim: int) -> Matrix:
    """Query vectors as (nq, dim), aligned: in a received frame they may lie anywhere."""
    return np.require(np.frombuffer(buffer, np.float32), requirements="A").reshape(-1, dim)


def _question(collection: Collection, request: m.SearchPart, condition: Condition) -> Question:
    field = collection.schema.by_id(request.field_id)
    if field is None:
        raise MishardsError(Kind.FIELD_NOT_FOUND, f"field {request.field_id} is not in the schema")
    return Question(
        field_id=request.field_id,
        index_id=_index_id(collection, request),
        queries=_matrix(request.queries, field.dim),
        k=request.k,
        metric=request.metric,
        params=request.params,
        condition=condition,
        radius=request.radius,
        range_filter=request.range_filter,
        text_keys=collection.schema.primary.type is DataType.VARCHAR,
    )


def _plan(hosted: Hosted, sources: Sequence[Source], question: Question) -> Plan:
    """How to search what has no index."""
    if not question.index_id or question.radius is not None:
        return NO_PLAN
    return hosted.joints.plan(sources, question.interim, question.index_id, question.queries.shape[1])


def _is_short(sources: Sequence[Source], question: Question, plan: Plan) -> bool:
    """Whether the loop may do the search itself."""
    return len(question.queries) * question.k <= INLINE_HITS and cost_s(sources, question, plan.groups) <= INLINE_S


def _index_id(collection: Collection, request: m.SearchPart) -> int:
    """The index definition in force, when it is of the metric asked for; else, and for FLAT, 0: search exactly."""
    index = collection.index_of(request.field_id)
    if index is None or index.metric != request.metric or index.type == "FLAT":
        return 0
    return index.id


def _covered(sources: list[Source]) -> int:
    return sum(source.planned for source in sources)


def _gone(files: list[int], version: int) -> MishardsError:
    return MishardsError(Kind.GONE, f"files {files} at version {version} are not known here")


def _only(question: Question, start: int, stop: int) -> Question:
    return replace(question, queries=question.queries[start:stop])


def _shifted(hits: Hits, by: int) -> Hits:
    return msgspec.structs.replace(hits, queries=hits.queries + np.int32(by))
