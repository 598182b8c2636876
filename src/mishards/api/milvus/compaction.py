"""Calls about compactions that clients ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.model import File
from mishards.proxy.requests import CompactionState, ProxyService


class CompactionCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "ManualCompaction": self.start,
            "GetCompactionState": self.state,
            "GetCompactionStateWithPlans": self.plans,
        }

    async def start(self, request: Any, call: Call) -> Any:
        """Of the whole collection, whatever part is named: more than asked changes no answer."""
        if request.majorCompaction:
            raise MishardsError(Kind.UNSUPPORTED, "clustering compaction is not supported")
        name = request.collection_name or await self._name(call.database, request.collectionID)
        return milvus_pb2.ManualCompactionResponse(
            compactionID=await self._proxy.compactions.start(call.database, name)
        )

    async def state(self, request: Any, call: Call) -> Any:
        """An attempt that fails is repeated until it succeeds: none fails or times out for good."""
        state = await self._proxy.compactions.state(request.compactionID)
        return milvus_pb2.GetCompactionStateResponse(
            state=_state(state), executingPlanNo=state.executing, completedPlanNo=len(state.merged)
        )

    async def plans(self, request: Any, call: Call) -> Any:
        """Of one compaction; with the name of a collection instead, all its merges that are still known."""
        if not request.compactionID and request.collection_name:
            merged = await self._proxy.compactions.merged(call.database, request.collection_name)
            completed = common_pb2.CompactionState.Completed
            return milvus_pb2.GetCompactionPlansResponse(state=completed, mergeInfos=_merge_infos(merged))
        state = await self._proxy.compactions.state(request.compactionID)
        infos = _merge_infos(state.merged, request.compactionID)
        return milvus_pb2.GetCompactionPlansResponse(state=_state(state), mergeInfos=infos)

    async def _name(self, database: str, id: int) -> str:
        found = next((one for one in await self._proxy.collections(database) if one.id == id), None)
        if found is None:
            raise collection_not_found(str(id), database)
        return found.name


def _state(state: CompactionState) -> Any:
    return common_pb2.CompactionState.Completed if state.done else common_pb2.CompactionState.Executing


def _merge_infos(merged: Iterable[File], trigger_id: int = 0) -> list[Any]:
    return [
        milvus_pb2.CompactionMergeInfo(
            sources=file.sources,
            target=file.segment_id,
            targets=[file.segment_id],
            plan_id=file.segment_id,
            trigger_id=trigger_id,
            collection_id=file.collection_id,
            partition_id=file.partition_id,
            type=common_pb2.CompactionType.CompactionTypeMix,
            state=common_pb2.CompactionTaskState.CompactionTaskStateCompleted,
        )
        for file in merged
    ]
