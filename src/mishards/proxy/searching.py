"""A search: checked, planned, scattered, merged, its output fields fetched with the parts or in a second step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.clock import Clock
from mishards.errors import invalid
from mishards.model import DataType, Field, NodeId
from mishards.ports import IndexKind, Matrix
from mishards.proxy.joining import Joining
from mishards.proxy.plan import Plan
from mishards.proxy.reading import Reached, ReadPath, check_size
from mishards.proxy.requests import SearchRequest, SearchResult
from mishards.proxy.scatter import PartAnswer
from mishards.proxy.shapes import Shape, Shapes
from mishards.proxy.together import all_of
from mishards.schema.keys import no_rows
from mishards.schema.limits import check_search_window
from mishards.segment.ipc import from_stream
from mishards.wire.hits import Hits, best, buffer_of, first_hits, gather, unpack
from mishards.wire.messages import FetchPart, FetchRows, SearchHits, SearchPart
from mishards.wire.services import ReaderService

INLINE_HITS = 2_000  # more are merged in a thread
JOINED_HITS_MAX = 1_000  # wanted by searches that are asked as one; larger ones gain nothing from company
VARIABLE_BYTES = 128  # what a VARCHAR or JSON value is taken to weigh when the way of fetching is chosen
SCALAR_BYTES = 8


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of some queries, sorted by query; row i of `rows` belongs to hit i."""

    counts: NDArray[np.int32]
    hits: Hits
    rows: pa.RecordBatch | None


class Searching:
    """Answers `ProxyService.search`."""

    def __init__(
        self,
        read_path: ReadPath,
        index_kind: Callable[[str], IndexKind],
        clock: Clock,
        result_bytes_direct: int,
        result_bytes_max: int,
    ) -> None:
        self._read_path = read_path
        self._shapes = Shapes(index_kind)
        self._joining: Joining[Matrix, Found] = Joining(clock, JOINED_HITS_MAX)
        self._result_bytes_direct = result_bytes_direct
        self._result_bytes_max = result_bytes_max

    async def search(self, request: SearchRequest) -> SearchResult:
        check_search_window(len(request.queries), request.limit, request.offset)
        reached = await self._read_path.reach(request)
        manifest = reached.manifest
        shape = await self._shapes.of(request, manifest.collection)
        check_queries(request.queries, shape.field)
        found = await self._joining.ask(
            (shape.key, manifest.version, reached.expired_ts),
            request.queries,
            len(request.queries) * shape.k,
            lambda asked: self._find_each(asked, shape, reached),
            reached.deadline_s,
        )
        scores = found.hits.scores
        if request.round_decimal >= 0:
            scores = np.round(scores, request.round_decimal).astype(np.float32)
        return SearchResult(
            collection=manifest.collection,
            counts=found.counts,
            scores=scores,
            keys=found.hits.keys.tolist() if shape.text_keys else found.hits.keys,
            output=shape.output.names,
            rows=found.rows,
            ts=manifest.ts,
        )

    async def _find_each(self, asked: list[Matrix], shape: Shape, reached: Reached) -> list[Found]:
        """One answer for each of several searches of one shape."""
        with self._read_path.using(reached.manifest):
            if len(asked) == 1:
                return [await self._find(asked[0], shape, reached)]
            together = await self._find(np.concatenate(asked), shape, reached)
        return split(together, [len(queries) for queries in asked])

    async def _find(self, queries: Matrix, shape: Shape, reached: Reached) -> Found:
        request, output, nq = shape.request, shape.output, len(queries)
        direct = self._is_direct(nq * shape.k, shape.output.fields)
        packed = buffer_of(queries)

        def ask(reader: ReaderService, plan: Plan, files: tuple[int, ...], left_s: float) -> Awaitable[SearchHits]:
            return reader.search(
                SearchPart(
                    collection_id=reached.manifest.collection.id,
                    version=plan.version,
                    files=files,
                    field_id=shape.field.id,
                    queries=packed,
                    nq=nq,
                    k=shape.k,
                    metric=shape.index.metric,
                    params=dict(request.params),
                    filter=request.filter,
                    template=dict(request.template),
                    radius=request.radius,
                    range_filter=request.range_filter,
                    output=tuple(field.id for field in output.fields) if direct else (),
                    deadline_s=left_s,
                    expired_ts=reached.expired_ts,
                    head=plan.head,
                )
            )

        plan, answers = await self._read_path.ask(request, reached, ask)

        def merge() -> Found:
            hits, counts = merged(answers, nq, shape)
            if not (direct and output.fields):
                return Found(counts, hits, None)
            rows = merged_rows([from_stream(part.answer.rows) for part in answers], hits, output.fields)
            return Found(counts, hits, rows)

        found = merge() if nq * shape.k * len(answers) <= INLINE_HITS else await asyncio.to_thread(merge)
        if output.fields and not direct:
            rows = await self._fetched_rows(found.hits, answers, output.fields, plan, reached)
            found = replace(found, rows=rows)
        return found

    def _is_direct(self, candidates: int, fields: Sequence[Field]) -> bool:
        """Whether the output fields of all candidates are small enough to travel with the parts."""
        return candidates * sum(_weight(field) for field in fields) <= self._result_bytes_direct

    async def _fetched_rows(
        self,
        hits: Hits,
        answers: Sequence[PartAnswer[SearchHits]],
        fields: Sequence[Field],
        plan: Plan,
        reached: Reached,
    ) -> pa.RecordBatch:
        """The second step: each part's winners from the reader that found them."""
        numbers, sources = np.unique(hits.sources, return_inverse=True)
        rows = np.empty(len(hits), np.int64)
        fetches = []
        for at, number in enumerate(numbers):
            mine = np.flatnonzero(sources == at)
            rows[mine] = np.arange(len(mine))
            fetches.append(self._fetch(hits.take(mine), answers[number].node, fields, plan, reached))
        fetched = await all_of(fetches)
        check_size(sum(len(part.rows) for part in fetched), self._result_bytes_max)
        found = msgspec.structs.replace(hits, sources=sources.astype(np.int32), rows=rows)
        return await asyncio.to_thread(lambda: merged_rows([from_stream(part.rows) for part in fetched], found, fields))

    async def _fetch(
        self, hits: Hits, node: NodeId, fields: Sequence[Field], plan: Plan, reached: Reached
    ) -> FetchRows:
        def ask(reader: ReaderService, left_s: float) -> Awaitable[FetchRows]:
            return reader.fetch(
                FetchPart(
                    collection_id=reached.manifest.collection.id,
                    version=plan.version,
                    files=buffer_of(hits.files),
                    positions=buffer_of(hits.positions),
                    output=tuple(field.id for field in fields),
                    deadline_s=left_s,
                )
            )

        return await self._read_path.scatter.ask_one([node], ask, reached.deadline_s)


def check_queries(queries: Matrix, field: Field) -> None:
    """The query vectors' shape (nq, dim) and values."""
    dim = queries.shape[1] if queries.ndim == 2 else 0
    if dim != field.dim:
        raise invalid(
            f"vector dimension mismatch: the query has dimension {dim}, field '{field.name}' has {field.dim}"
            f" (expected vector size(byte) {4 * field.dim}, actual {4 * dim})"
        )
    finite = np.isfinite(queries)
    if np.count_nonzero(finite) < finite.size:  # a third of the cost of `all`
        number = int(np.argmin(finite.all(axis=1)))
        raise invalid(f"query vector {number} holds NaN or infinity, finite values are required")


def merged(answers: Sequence[PartAnswer[SearchHits]], nq: int, shape: Shape) -> tuple[Hits, NDArray[np.int32]]:
    """The hits asked for, sorted, and how many each query has (nq,)."""
    limit, offset = shape.request.limit, shape.request.offset
    if len(answers) == 1:  # a part's hits are sorted already
        message = answers[0].answer
        return first_hits(unpack(message, 0, shape.text_keys), np.frombuffer(message.counts, np.int32), limit, offset)
    parts = [unpack(part.answer, number, shape.text_keys) for number, part in enumerate(answers)]
    return best(gather(parts, shape.text_keys), nq, shape.index.metric, limit, offset)


def merged_rows(batches: Sequence[pa.RecordBatch], hits: Hits, fields: Sequence[Field]) -> pa.RecordBatch:
    """The rows of `hits` in order, from the parts' rows, which have the columns `fields`."""
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    if len(hits) == 0:
        return no_rows(fields)
    filled = [batch for batch in batches if batch.num_rows]  # a part without rows may not know its columns' types
    whole = filled[0] if len(filled) == 1 else pa.Table.from_batches(filled).combine_chunks().to_batches()[0]
    places = starts[hits.sources] + hits.rows
    return whole.take(pa.array(places))


def split(found: Found, sizes: Sequence[int]) -> list[Found]:
    """The answers of searches that were asked as one; `sizes`: how many queries each has."""
    answers, query, hit = [], 0, 0
    for nq in sizes:
        counts = found.counts[query : query + nq]
        end = hit + int(counts.sum())
        rows = None if found.rows is None else found.rows.slice(hit, end - hit)
        answers.append(Found(counts, found.hits.part(hit, end), rows))
        query, hit = query + nq, end
    return answers


def _weight(field: Field) -> int:
    if field.is_vector:
        return 4 * field.dim
    return VARIABLE_BYTES if field.type in (DataType.VARCHAR, DataType.JSON) else SCALAR_BYTES
