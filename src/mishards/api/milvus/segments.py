"""Calls that show the segments of a collection."""

from __future__ import annotations

from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.proxy.requests import ProxyService


class SegmentCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "GetPersistentSegmentInfo": self.persistent,
            "GetQuerySegmentInfo": self.loaded,
        }

    async def persistent(self, request: Any, call: Call) -> Any:
        """Every listed segment is flushed and sorted by primary key."""
        flushed = common_pb2.SegmentState.Flushed
        if request.states and flushed not in request.states:
            return milvus_pb2.GetPersistentSegmentInfoResponse()
        segments = await self._proxy.segments(call.database, request.collectionName)
        return milvus_pb2.GetPersistentSegmentInfoResponse(
            infos=[
                milvus_pb2.PersistentSegmentInfo(
                    segmentID=segment.segment_id,
                    collectionID=segment.collection_id,
                    partitionID=segment.partition_id,
                    num_rows=segment.rows,
                    state=flushed,
                    level=common_pb2.SegmentLevel.L1,
                    is_sorted=True,
                )
                for segment in segments
            ]
        )

    async def loaded(self, request: Any, call: Call) -> Any:
        collection = await self._proxy.collection(call.database, request.collectionName)
        if not collection.loaded:
            return milvus_pb2.GetQuerySegmentInfoResponse()
        names: dict[int, str] = {index.id: index.name for index in collection.indexes}
        infos = []
        for segment in await self._proxy.segments(call.database, request.collectionName):
            index_id = next((part.index_id for part in segment.parts if part.kind == "index"), 0)
            infos.append(
                milvus_pb2.QuerySegmentInfo(
                    segmentID=segment.segment_id,
                    collectionID=segment.collection_id,
                    partitionID=segment.partition_id,
                    mem_size=segment.bytes,
                    num_rows=segment.rows,
                    indexID=index_id,
                    index_name=names.get(index_id, ""),
                    state=common_pb2.SegmentState.Sealed,
                    level=common_pb2.SegmentLevel.L1,
                    is_sorted=True,
                )
            )
        return milvus_pb2.GetQuerySegmentInfoResponse(infos=infos)
