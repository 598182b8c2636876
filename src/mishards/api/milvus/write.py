"""Calls that write: insert, upsert, delete, flush."""

from __future__ import annotations

from typing import Any, Literal

from mishards.api.milvus.calls import Call, Table, Workers
from mishards.api.milvus.stubs import milvus_pb2, schema_pb2
from mishards.api.milvus.translate_columns import columns_of, ids_of
from mishards.api.milvus.translate_schema import unix_ms
from mishards.api.milvus.translate_template import template_of
from mishards.errors import Kind, MishardsError
from mishards.proxy.requests import DeleteRequest, Flushed, Mutation, ProxyService, RowsRequest


class WriteCalls:
    def __init__(self, proxy: ProxyService, workers: Workers) -> None:
        self._proxy = proxy
        self._workers = workers

    def table(self) -> Table:
        return {
            "Insert": self.insert,
            "Upsert": self.upsert,
            "Delete": self.delete,
            "Flush": self.flush,
            "GetFlushState": self.get_flush_state,
            "FlushAll": self.flush_all,
            "GetFlushAllState": self.get_flush_all_state,
        }

    async def insert(self, request: Any, call: Call) -> Any:
        written = await self._write("insert", request, call)
        return _rows_written(written, insert_cnt=written.count)

    async def upsert(self, request: Any, call: Call) -> Any:
        if request.partial_update or request.field_ops:
            raise MishardsError(Kind.UNSUPPORTED, "partial update in upsert is not supported")
        written = await self._write("upsert", request, call)
        return _rows_written(written, upsert_cnt=written.count)

    async def delete(self, request: Any, call: Call) -> Any:
        _refuse_namespace(request)
        deleted = await self._proxy.delete(
            DeleteRequest(
                collection=request.collection_name,
                filter=request.expr,
                template=template_of(request.expr_template_values),
                database=call.database,
                partition=request.partition_name,
                timeout_s=call.timeout_s,
            )
        )
        return milvus_pb2.MutationResult(delete_cnt=deleted.count, timestamp=deleted.ts, acknowledged=True)

    async def flush(self, request: Any, call: Call) -> Any:
        names = list(request.collection_names)
        flushed = dict(zip(names, await self._proxy.flush(call.database, names), strict=True))
        segments = {name: schema_pb2.LongArray(data=one.segments) for name, one in flushed.items()}
        return milvus_pb2.FlushResponse(
            db_name=call.database,
            coll_segIDs=segments,
            flush_coll_segIDs=segments,
            coll_seal_times={name: unix_ms(one.ts) // 1000 for name, one in flushed.items()},
            coll_flush_ts={name: one.ts for name, one in flushed.items()},
        )

    async def get_flush_state(self, request: Any, call: Call) -> Any:
        return milvus_pb2.GetFlushStateResponse(flushed=await self._proxy.flushed(list(request.segmentIDs)))

    async def flush_all(self, request: Any, call: Call) -> Any:
        names = [collection.name for collection in await self._proxy.collections(call.database)]
        flushed = await self._proxy.flush(call.database, names)
        results = milvus_pb2.FlushAllResult(db_name=call.database, collection_results=map(_flush_result, flushed))
        return milvus_pb2.FlushAllResponse(flush_all_ts=await self._proxy.fresh_ts(), flush_results=[results])

    async def get_flush_all_state(self, request: Any, call: Call) -> Any:
        """FlushAll answers when everything is flushed, so a timestamp that it gave out is always reached."""
        return milvus_pb2.GetFlushAllStateResponse(flushed=True)

    async def _write(self, kind: Literal["insert", "upsert"], request: Any, call: Call) -> Mutation:
        _refuse_namespace(request)
        return await self._proxy.write(
            RowsRequest(
                kind=kind,
                collection=request.collection_name,
                columns=await self._workers.run(call.bytes, columns_of, request.fields_data),
                rows=request.num_rows,
                database=call.database,
                partition=request.partition_name,
                schema_ts=request.schema_timestamp,
                timeout_s=call.timeout_s,
            )
        )


def _rows_written(written: Mutation, **counts: int) -> Any:
    return milvus_pb2.MutationResult(
        IDs=ids_of(written.keys), succ_index=range(written.count), timestamp=written.ts, acknowledged=True, **counts
    )


def _flush_result(flushed: Flushed) -> Any:
    return milvus_pb2.FlushCollectionResult(
        collection_name=flushed.collection.name,
        segment_ids=schema_pb2.LongArray(data=flushed.segments),
        seal_time=unix_ms(flushed.ts) // 1000,
        flush_ts=flushed.ts,
    )


def _refuse_namespace(request: Any) -> None:
    if request.namespace:
        raise MishardsError(Kind.UNSUPPORTED, "namespace is not supported")
