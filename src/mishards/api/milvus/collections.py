"""Calls that define, change and describe collections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.rpcs import status_of
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.api.milvus.translate_schema import check_properties, create_collection, described, pairs_of, unix_ms
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.model import Collection
from mishards.proxy.requests import ProxyService
from mishards.schema.names import check_collection_name
from mishards.wire import definitions


class CollectionCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "CreateCollection": self.create,
            "DropCollection": self.drop,
            "HasCollection": self.has,
            "DescribeCollection": self.describe,
            "BatchDescribeCollection": self.batch_describe,
            "ShowCollections": self.show,
            "RenameCollection": self.rename,
            "AlterCollection": self.alter,
            "GetCollectionStatistics": self.statistics,
        }

    async def create(self, request: Any, call: Call) -> Any:
        await self._proxy.define(create_collection(request, call.database))
        return common_pb2.Status()

    async def drop(self, request: Any, call: Call) -> Any:
        await self._proxy.define(definitions.DropCollection(database=call.database, collection=request.collection_name))
        return common_pb2.Status()

    async def has(self, request: Any, call: Call) -> Any:
        try:
            await self._proxy.collection(call.database, request.collection_name)
        except MishardsError as error:
            if error.kind is not Kind.COLLECTION_NOT_FOUND:
                raise
            return milvus_pb2.BoolResponse(value=False)
        return milvus_pb2.BoolResponse(value=True)

    async def describe(self, request: Any, call: Call) -> Any:
        return described(await self._find(call.database, request.collection_name, request.collectionID))

    async def batch_describe(self, request: Any, call: Call) -> Any:
        wanted = [(name, 0) for name in request.collection_name] + [("", id) for id in request.collectionID]
        responses = []
        for name, id in wanted:
            try:
                responses.append(described(await self._find(call.database, name, id)))
            except MishardsError as error:
                responses.append(milvus_pb2.DescribeCollectionResponse(status=status_of(error)))
        return milvus_pb2.BatchDescribeCollectionResponse(responses=responses)

    async def show(self, request: Any, call: Call) -> Any:
        collections = await self._proxy.collections(call.database)
        if request.collection_names:
            collections = [one for one in collections if one.name in request.collection_names]
        in_memory = request.type == milvus_pb2.ShowType.InMemory
        if in_memory:
            collections = [one for one in collections if one.loaded]
        return milvus_pb2.ShowCollectionsResponse(
            collection_names=[one.name for one in collections],
            collection_ids=[one.id for one in collections],
            created_timestamps=[one.created_ts for one in collections],
            created_utc_timestamps=[unix_ms(one.created_ts) for one in collections],
            shards_num=[one.shards for one in collections],
            inMemory_percentages=await self._percentages(collections) if in_memory else [],
            query_service_available=[True] * len(collections) if in_memory else [],
        )

    async def rename(self, request: Any, call: Call) -> Any:
        if request.newDBName not in ("", call.database):
            raise MishardsError(Kind.DATABASE_NOT_FOUND, f"database not found[database={request.newDBName}]")
        check_collection_name(request.newName)
        await self._proxy.define(
            definitions.RenameCollection(database=call.database, collection=request.oldName, name=request.newName)
        )
        return common_pb2.Status()

    async def alter(self, request: Any, call: Call) -> Any:
        properties = pairs_of(request.properties)
        check_properties(properties)
        name = request.collection_name or (await self._find(call.database, "", request.collectionID)).name
        await self._proxy.define(
            definitions.AlterProperties(
                database=call.database, collection=name, set=properties, delete=tuple(request.delete_keys)
            )
        )
        return common_pb2.Status()

    async def statistics(self, request: Any, call: Call) -> Any:
        rows = await self._proxy.row_count(call.database, request.collection_name)
        return milvus_pb2.GetCollectionStatisticsResponse(
            stats=[common_pb2.KeyValuePair(key="row_count", value=str(rows))]
        )

    async def _find(self, database: str, name: str, id: int) -> Collection:
        """By name or alias, else by id."""
        if name or not id:
            return await self._proxy.collection(database, name)
        found = next((one for one in await self._proxy.collections(database) if one.id == id), None)
        if found is None:
            raise collection_not_found(str(id), database)
        return found

    async def _percentages(self, collections: Sequence[Collection]) -> list[int]:
        return [await self._proxy.load_progress(one.database, one.name) for one in collections]
