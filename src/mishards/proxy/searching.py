"""A search: checked, planned, scattered, merged, its output fields fetched with the parts or in a second step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.errors import Kind, MishardsError, invalid
from mishards.model import Collection, DataType, Field, Index, NodeId
from mishards.ports import IndexKind
from mishards.proxy.filters import compiled
from mishards.proxy.plan import Plan
from mishards.proxy.reading import Reached, ReadPath, check_size
from mishards.proxy.requests import SearchRequest, SearchResult
from mishards.proxy.scatter import PartAnswer
from mishards.proxy.together import all_of
from mishards.schema.keys import no_rows
from mishards.schema.limits import check_search_window
from mishards.schema.output import Output, resolve_output
from mishards.segment.ipc import from_stream
from mishards.wire.hits import Hits, best, buffer_of, gather, unpack
from mishards.wire.messages import FetchPart, FetchRows, SearchHits, SearchPart
from mishards.wire.services import ReaderService

INLINE_HITS = 2_000  # more are merged in a thread
VARIABLE_BYTES = 128  # what a VARCHAR or JSON value is taken to weigh when the way of fetching is chosen
SCALAR_BYTES = 8


class Searching:
    """Answers `ProxyService.search`."""

    def __init__(
        self,
        read_path: ReadPath,
        index_kind: Callable[[str], IndexKind],
        result_bytes_direct: int,
        result_bytes_max: int,
    ) -> None:
        self._read_path = read_path
        self._index_kind = index_kind
        self._result_bytes_direct = result_bytes_direct
        self._result_bytes_max = result_bytes_max

    async def search(self, request: SearchRequest) -> SearchResult:
        check_search_window(len(request.queries), request.limit, request.offset)
        reached = await self._read_path.reach(request)
        collection = reached.manifest.collection
        field = vector_field(collection, request.field)
        index = self._checked(request, collection, field)
        await compiled(request.filter, collection.schema, request.template)
        output = resolve_output(collection.schema, request.output)
        direct = self._is_direct(request, output)

        def ask(reader: ReaderService, plan: Plan, files: tuple[int, ...], left_s: float) -> Awaitable[SearchHits]:
            return reader.search(self._part(request, field, index, output if direct else None, plan, files, left_s))

        plan, answers = await self._read_path.ask(request, reached, ask)
        text_keys = collection.schema.primary.type is DataType.VARCHAR

        def merge() -> tuple[Hits, NDArray[np.int32], pa.RecordBatch | None]:
            parts = [unpack(part.answer, number, text_keys) for number, part in enumerate(answers)]
            found = gather(parts, text_keys)
            hits, counts = best(found, len(request.queries), index.metric, request.limit, request.offset)
            if not (direct and output.fields):
                return hits, counts, None
            return hits, counts, merged_rows([from_stream(p.answer.rows) for p in answers], hits, output.fields)

        candidates = len(request.queries) * (request.limit + request.offset) * len(answers)
        hits, counts, rows = merge() if candidates <= INLINE_HITS else await asyncio.to_thread(merge)
        if output.fields and not direct:
            rows = await self._fetched_rows(hits, answers, output, plan, reached)
        scores = hits.scores
        if request.round_decimal >= 0:
            scores = np.round(scores, request.round_decimal).astype(np.float32)
        return SearchResult(
            collection=collection,
            counts=counts,
            scores=scores,
            keys=hits.keys.tolist() if text_keys else hits.keys,
            output=output.names,
            rows=rows,
            ts=reached.manifest.ts,
        )

    def _checked(self, request: SearchRequest, collection: Collection, field: Field) -> Index:
        """The index the search goes through, its parameters checked."""
        index = collection.index_of(field.id)
        if index is None:
            raise MishardsError(Kind.INDEX_NOT_FOUND, f"index not found[collection={collection.name}]")
        check_queries(request, field)
        if request.metric and request.metric.upper() != index.metric:
            raise invalid(
                f"metric type not match: invalid parameter[expected={index.metric}][actual={request.metric.upper()}]"
            )
        _check_range(request, index.metric)
        self._index_kind(index.type).check_search(request.params, request.limit + request.offset)
        return index

    def _part(
        self,
        request: SearchRequest,
        field: Field,
        index: Index,
        output: Output | None,
        plan: Plan,
        files: tuple[int, ...],
        left_s: float,
    ) -> SearchPart:
        return SearchPart(
            collection_id=plan.files[0].collection_id,
            version=plan.version,
            files=files,
            field_id=field.id,
            queries=buffer_of(request.queries),
            nq=len(request.queries),
            k=request.limit + request.offset,
            metric=index.metric,
            params=dict(request.params),
            filter=request.filter,
            template=dict(request.template),
            radius=request.radius,
            range_filter=request.range_filter,
            output=() if output is None else tuple(field.id for field in output.fields),
            deadline_s=left_s,
        )

    def _is_direct(self, request: SearchRequest, output: Output) -> bool:
        """Whether the output fields of all candidates are small enough to travel with the parts."""
        row_bytes = sum(_weight(field) for field in output.fields)
        candidates = len(request.queries) * (request.limit + request.offset)
        return candidates * row_bytes <= self._result_bytes_direct

    async def _fetched_rows(
        self, hits: Hits, answers: Sequence[PartAnswer[SearchHits]], output: Output, plan: Plan, reached: Reached
    ) -> pa.RecordBatch:
        """The second step: each part's winners from the reader that found them."""
        numbers, sources = np.unique(hits.sources, return_inverse=True)
        rows = np.empty(len(hits), np.int64)
        fetches = []
        for at, number in enumerate(numbers):
            mine = np.flatnonzero(sources == at)
            rows[mine] = np.arange(len(mine))
            fetches.append(self._fetch(hits.take(mine), answers[number].node, output, plan, reached))
        fetched = await all_of(fetches)
        check_size(sum(len(part.rows) for part in fetched), self._result_bytes_max)
        found = replace(hits, sources=sources.astype(np.int32), rows=rows)
        return await asyncio.to_thread(
            lambda: merged_rows([from_stream(part.rows) for part in fetched], found, output.fields)
        )

    async def _fetch(self, hits: Hits, node: NodeId, output: Output, plan: Plan, reached: Reached) -> FetchRows:
        def ask(reader: ReaderService, left_s: float) -> Awaitable[FetchRows]:
            return reader.fetch(
                FetchPart(
                    collection_id=plan.files[0].collection_id,
                    version=plan.version,
                    files=buffer_of(hits.files),
                    positions=buffer_of(hits.positions),
                    output=tuple(field.id for field in output.fields),
                    deadline_s=left_s,
                )
            )

        return await self._read_path.scatter.ask_one([node], ask, reached.deadline_s)


def vector_field(collection: Collection, name: str) -> Field:
    """The field to search; "" means the only vector field."""
    vectors = collection.schema.vectors
    if not name:
        if len(vectors) != 1:
            names = ", ".join(field.name for field in vectors)
            raise invalid(f"multiple anns_fields exist, please specify a anns_field in search_params: {names}")
        return vectors[0]
    field = collection.schema.field(name)
    if field is None:
        raise MishardsError(Kind.FIELD_NOT_FOUND, f"failed to get field schema by name: fieldName({name}) not found")
    if not field.is_vector:
        raise invalid(f"field {name} is of type {field.type.name}, a search needs a FLOAT_VECTOR field")
    return field


def check_queries(request: SearchRequest, field: Field) -> None:
    """The query vectors' shape and values."""
    dim = request.queries.shape[1] if request.queries.ndim == 2 else 0
    if dim != field.dim:
        raise invalid(
            f"vector dimension mismatch: the query has dimension {dim}, field '{field.name}' has {field.dim}"
            f" (expected vector size(byte) {4 * field.dim}, actual {4 * dim})"
        )
    finite = np.isfinite(request.queries).all(axis=1)
    if not finite.all():
        raise invalid(f"query vector {int(np.argmin(finite))} holds NaN or infinity, finite values are required")


def _check_range(request: SearchRequest, metric: str) -> None:
    if request.radius is None or request.range_filter is None:
        if request.range_filter is not None:
            raise invalid(f"range_filter {request.range_filter} is given without radius, a range search needs radius")
        return
    if metric == "L2" and request.range_filter >= request.radius:
        raise invalid(
            f"range_filter must be less than radius for L2, got range_filter {request.range_filter},"
            f" radius {request.radius}"
        )
    if metric != "L2" and request.range_filter <= request.radius:
        raise invalid(
            f"range_filter must be greater than radius for {metric}, got range_filter {request.range_filter},"
            f" radius {request.radius}"
        )


def merged_rows(batches: Sequence[pa.RecordBatch], hits: Hits, fields: Sequence[Field]) -> pa.RecordBatch:
    """The rows of `hits` in order, from the parts' rows, which have the columns `fields`."""
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    if len(hits) == 0:
        return no_rows(fields)
    filled = [batch for batch in batches if batch.num_rows]  # a part without rows may not know its columns' types
    whole = filled[0] if len(filled) == 1 else pa.Table.from_batches(filled).combine_chunks().to_batches()[0]
    places = starts[hits.sources] + hits.rows
    return whole.take(pa.array(places))


def _weight(field: Field) -> int:
    if field.is_vector:
        return 4 * field.dim
    return VARIABLE_BYTES if field.type in (DataType.VARCHAR, DataType.JSON) else SCALAR_BYTES
