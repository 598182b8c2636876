"""A query or count: planned and scattered like a search, merged in primary key order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, Consistency, Field
from mishards.proxy.filters import compiled
from mishards.proxy.plan import Plan
from mishards.proxy.reading import ReadPath, check_size
from mishards.proxy.requests import QueryRequest, QueryResult
from mishards.proxy.scatter import PartAnswer
from mishards.schema.keys import no_rows
from mishards.schema.limits import check_query_window
from mishards.schema.output import resolve_output
from mishards.segment.ipc import from_stream
from mishards.wire.messages import QueryPart, QueryRows
from mishards.wire.services import ReaderService

INLINE_BYTES = 256 * 1024


class Querying:
    """Answers `ProxyService.query`."""

    def __init__(self, read_path: ReadPath, result_bytes_max: int) -> None:
        self._read_path = read_path
        self._result_bytes_max = result_bytes_max

    async def query(self, request: QueryRequest) -> QueryResult:
        check_query_window(request.limit, request.offset)
        if not request.filter and request.limit is None and not request.count:
            raise MishardsError(Kind.UNEXPECTED, "empty expression should be used with limit")
        reached = await self._read_path.reach(request)
        collection = reached.manifest.collection
        schema = collection.schema
        await compiled(request.filter, schema, request.template)
        output = resolve_output(schema, () if request.count else request.output, with_key=True)
        limit = -1 if request.limit is None else request.limit + request.offset

        def ask(reader: ReaderService, plan: Plan, files: tuple[int, ...], left_s: float) -> Awaitable[QueryRows]:
            return reader.query(
                QueryPart(
                    collection_id=collection.id,
                    version=plan.version,
                    files=files,
                    filter=request.filter,
                    template=dict(request.template),
                    output=tuple(field.id for field in output.fields),
                    limit=limit,
                    count=request.count,
                    deadline_s=left_s,
                    expired_ts=reached.expired_ts,
                    head=plan.head,
                )
            )

        with self._read_path.using(reached.manifest):
            _, answers = await self._read_path.ask(request, reached, ask)
        if request.count:
            total = sum(part.answer.count for part in answers)
            return QueryResult(collection=collection, output=(), rows=None, count=total, ts=reached.manifest.ts)
        check_size(sum(len(part.answer.rows) for part in answers), self._result_bytes_max)
        rows = await merged(answers, output.fields, request.limit, request.offset)
        return QueryResult(
            collection=collection, output=output.names, rows=rows, count=rows.num_rows, ts=reached.manifest.ts
        )

    async def keys(self, request: QueryRequest) -> tuple[Collection, pa.Array, int]:
        """The primary keys a filter selects at the newest version: (what the name means by now, keys, version)."""
        strong = QueryRequest(
            collection=request.collection,
            database=request.database,
            partitions=request.partitions,
            filter=request.filter,
            template=request.template,
            consistency=Consistency.STRONG,
            timeout_s=request.timeout_s,
        )
        reached = await self._read_path.reach(strong)
        collection = reached.manifest.collection
        primary = collection.schema.primary

        def ask(reader: ReaderService, plan: Plan, files: tuple[int, ...], left_s: float) -> Awaitable[QueryRows]:
            return reader.query(
                QueryPart(
                    collection_id=collection.id,
                    version=plan.version,
                    files=files,
                    filter=request.filter,
                    template=dict(request.template),
                    output=(primary.id,),
                    deadline_s=left_s,
                    head=plan.head,
                )
            )

        with self._read_path.using(reached.manifest):
            plan, answers = await self._read_path.ask(strong, reached, ask)
        rows = await merged(answers, (primary,), None, 0)
        return collection, rows.column(primary.column), plan.version


async def merged(
    answers: Sequence[PartAnswer[QueryRows]], fields: Sequence[Field], limit: int | None, offset: int
) -> pa.RecordBatch:
    """The parts' rows in key order; large ones are merged in a thread."""

    def merge() -> pa.RecordBatch:
        return in_key_order([from_stream(part.answer.rows) for part in answers], fields, limit, offset)

    size = sum(len(part.answer.rows) for part in answers)
    return merge() if size <= INLINE_BYTES else await asyncio.to_thread(merge)


def in_key_order(
    batches: Sequence[pa.RecordBatch], fields: Sequence[Field], limit: int | None, offset: int
) -> pa.RecordBatch:
    """Rows offset..offset+limit-1 by primary key of parts that are each in key order and have the columns `fields`."""
    filled = [batch for batch in batches if batch.num_rows]
    if not filled:
        return no_rows(fields)
    whole = filled[0]
    if len(filled) > 1:
        primary = next(field for field in fields if field.primary_key)
        table = pa.Table.from_batches(filled)
        order = pc.sort_indices(table.column(primary.column))
        whole = table.take(order).combine_chunks().to_batches()[0]
    return whole.slice(offset, whole.num_rows if limit is None else limit)
