"""Calls that define and describe aliases of collections."""

from __future__ import annotations

from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.errors import Kind, MishardsError
from mishards.proxy.requests import ProxyService
from mishards.schema.names import check_alias_name
from mishards.wire import definitions


class AliasCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "CreateAlias": self.create,
            "AlterAlias": self.alter,
            "DropAlias": self.drop,
            "DescribeAlias": self.describe,
            "ListAliases": self.list,
        }

    async def create(self, request: Any, call: Call) -> Any:
        check_alias_name(request.alias)
        await self._proxy.define(
            definitions.CreateAlias(database=call.database, collection=request.collection_name, alias=request.alias)
        )
        return common_pb2.Status()

    async def alter(self, request: Any, call: Call) -> Any:
        check_alias_name(request.alias)
        await self._proxy.define(
            definitions.AlterAlias(database=call.database, collection=request.collection_name, alias=request.alias)
        )
        return common_pb2.Status()

    async def drop(self, request: Any, call: Call) -> Any:
        await self._proxy.define(definitions.DropAlias(database=call.database, alias=request.alias))
        return common_pb2.Status()

    async def describe(self, request: Any, call: Call) -> Any:
        collections = await self._proxy.collections(call.database)
        found = next((one for one in collections if request.alias in one.aliases), None)
        if found is None:
            raise MishardsError(
                Kind.ALIAS_NOT_FOUND, f"alias not found[database={call.database}][alias={request.alias}]"
            )
        return milvus_pb2.DescribeAliasResponse(db_name=call.database, alias=request.alias, collection=found.name)

    async def list(self, request: Any, call: Call) -> Any:
        if not request.collection_name:
            collections = await self._proxy.collections(call.database)
            names = [alias for one in collections for alias in one.aliases]
            return milvus_pb2.ListAliasesResponse(db_name=call.database, aliases=names)
        collection = await self._proxy.collection(call.database, request.collection_name)
        return milvus_pb2.ListAliasesResponse(
            db_name=call.database, collection_name=collection.name, aliases=collection.aliases
        )
