"""Calls that define and describe indexes. Type, metric and parameters are checked where the proxy defines one."""

from __future__ import annotations

from typing import Any, Final

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.api.milvus.translate_json import unfolded
from mishards.api.milvus.translate_schema import key_values, pairs_of
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, Index
from mishards.proxy.requests import ProxyService
from mishards.schema.names import check_index_name
from mishards.wire import definitions

_AUTOINDEX: Final = "AUTOINDEX"
_TYPE: Final = "index_type"
_METRIC: Final = "metric_type"


class IndexCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "CreateIndex": self.create,
            "DescribeIndex": self.describe,
            "DropIndex": self.drop,
            "GetIndexState": self.state,
            "GetIndexBuildProgress": self.build_progress,
            "GetIndexStatistics": self.statistics,
        }

    async def create(self, request: Any, call: Call) -> Any:
        if request.index_name:
            check_index_name(request.index_name)
        raw = pairs_of(request.extra_params)
        params = unfolded(raw, "index params")
        if "json_path" in params:
            raise MishardsError(
                Kind.UNSUPPORTED, f"index on a path of JSON field {request.field_name} is not supported"
            )
        await self._proxy.define(
            definitions.CreateIndex(
                database=call.database,
                collection=request.collection_name,
                field=request.field_name,
                name=request.index_name or request.field_name,
                type=str(params.pop(_TYPE, "") or _AUTOINDEX).upper(),
                metric=str(params.pop(_METRIC, "")).upper(),
                params=params,
                raw=raw,
            )
        )
        return common_pb2.Status()

    async def drop(self, request: Any, call: Call) -> Any:
        name = request.index_name
        if not name:
            collection = await self._proxy.collection(call.database, request.collection_name)
            name = _chosen(collection, "", request.field_name)[0].name
        await self._proxy.define(
            definitions.DropIndex(database=call.database, collection=request.collection_name, name=name)
        )
        return common_pb2.Status()

    async def describe(self, request: Any, call: Call) -> Any:
        return milvus_pb2.DescribeIndexResponse(index_descriptions=await self._described(request, call))

    async def statistics(self, request: Any, call: Call) -> Any:
        return milvus_pb2.GetIndexStatisticsResponse(index_descriptions=await self._described(request, call))

    async def state(self, request: Any, call: Call) -> Any:
        descriptions = await self._described(request, call)
        return milvus_pb2.GetIndexStateResponse(state=min(one.state for one in descriptions))

    async def build_progress(self, request: Any, call: Call) -> Any:
        (description, *_) = await self._described(request, call)
        return milvus_pb2.GetIndexBuildProgressResponse(
            indexed_rows=description.indexed_rows, total_rows=description.total_rows
        )

    async def _described(self, request: Any, call: Call) -> list[Any]:
        """The descriptions of the indexes that a request means; at least one."""
        collection = await self._proxy.collection(call.database, request.collection_name)
        chosen = _chosen(collection, request.index_name, getattr(request, "field_name", ""))
        return [await self._description(call.database, collection, index) for index in chosen]

    async def _description(self, database: str, collection: Collection, index: Index) -> Any:
        progress = await self._proxy.index_progress(database, collection.name, index.id)
        field = collection.schema.by_id(index.field_id)
        states = common_pb2.IndexState
        return milvus_pb2.IndexDescription(
            index_name=index.name,
            indexID=index.id,
            field_name=field.name if field else "",
            params=key_values(_described_params(index)),
            total_rows=progress.total,
            indexed_rows=progress.indexed,
            pending_index_rows=progress.pending,
            state=states.InProgress if progress.pending else states.Finished,
        )


def _chosen(collection: Collection, name: str, field: str) -> list[Index]:
    """The indexes of that name, else of that field, else all. INDEX_NOT_FOUND."""
    of_field = collection.schema.field(field)
    chosen = [
        index
        for index in collection.indexes
        if (not name or index.name == name) and (of_field is None or index.field_id == of_field.id)
    ]
    if not chosen or (field and of_field is None):
        what = f"[indexName={name}]" if name else f"[field={field}]" if field else ""
        raise MishardsError(Kind.INDEX_NOT_FOUND, f"index not found[collection={collection.name}]{what}")
    return chosen


def _described_params(index: Index) -> dict[str, str]:
    """As the client sent them, with the type and metric that hold."""
    held = {_TYPE: index.type} | ({_METRIC: index.metric} if index.metric else {})
    return index.raw | held
