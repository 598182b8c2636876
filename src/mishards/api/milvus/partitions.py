"""Calls that define and describe partitions."""

from __future__ import annotations

from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.api.milvus.translate_schema import unix_ms
from mishards.proxy.requests import ProxyService
from mishards.schema.names import check_partition_name
from mishards.wire import definitions


class PartitionCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "CreatePartition": self.create,
            "DropPartition": self.drop,
            "HasPartition": self.has,
            "ShowPartitions": self.show,
            "GetPartitionStatistics": self.statistics,
        }

    async def create(self, request: Any, call: Call) -> Any:
        check_partition_name(request.partition_name)
        await self._proxy.define(
            definitions.CreatePartition(
                database=call.database, collection=request.collection_name, partition=request.partition_name
            )
        )
        return common_pb2.Status()

    async def drop(self, request: Any, call: Call) -> Any:
        await self._proxy.define(
            definitions.DropPartition(
                database=call.database, collection=request.collection_name, partition=request.partition_name
            )
        )
        return common_pb2.Status()

    async def has(self, request: Any, call: Call) -> Any:
        collection = await self._proxy.collection(call.database, request.collection_name)
        return milvus_pb2.BoolResponse(value=collection.partition(request.partition_name) is not None)

    async def show(self, request: Any, call: Call) -> Any:
        collection = await self._proxy.collection(call.database, request.collection_name)
        partitions = [
            one for one in collection.partitions if not request.partition_names or one.name in request.partition_names
        ]
        in_memory = request.type == milvus_pb2.ShowType.InMemory
        percentages = []
        if in_memory:
            partitions = [
                one for one in partitions if collection.loaded and one.id not in collection.released_partitions
            ]
            percentages = [
                await self._proxy.load_progress(call.database, collection.name, [one.name]) for one in partitions
            ]
        return milvus_pb2.ShowPartitionsResponse(
            partition_names=[one.name for one in partitions],
            partitionIDs=[one.id for one in partitions],
            created_timestamps=[one.created_ts for one in partitions],
            created_utc_timestamps=[unix_ms(one.created_ts) for one in partitions],
            inMemory_percentages=percentages,
        )

    async def statistics(self, request: Any, call: Call) -> Any:
        rows = await self._proxy.row_count(call.database, request.collection_name, request.partition_name)
        return milvus_pb2.GetPartitionStatisticsResponse(
            stats=[common_pb2.KeyValuePair(key="row_count", value=str(rows))]
        )
