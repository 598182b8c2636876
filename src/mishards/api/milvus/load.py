"""Calls that load and release collections and partitions, and tell how far that is."""

from __future__ import annotations

from typing import Any, Final

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.errors import Kind, MishardsError, invalid
from mishards.proxy.requests import ProxyService
from mishards.wire import definitions

_DEFAULT_RESOURCE_GROUP: Final = "__default_resource_group"
_NOT_LOADED: Final = (Kind.COLLECTION_NOT_LOADED, Kind.PARTITION_NOT_LOADED)


class LoadCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "LoadCollection": self.load_collection,
            "ReleaseCollection": self.release_collection,
            "LoadPartitions": self.load_partitions,
            "ReleasePartitions": self.release_partitions,
            "GetLoadingProgress": self.get_loading_progress,
            "GetLoadState": self.get_load_state,
        }

    async def load_collection(self, request: Any, call: Call) -> Any:
        _refuse_partial_load(request)
        await self._proxy.define(
            definitions.LoadCollection(
                database=call.database, collection=request.collection_name, replicas=request.replica_number
            )
        )
        return common_pb2.Status()

    async def release_collection(self, request: Any, call: Call) -> Any:
        await self._proxy.define(
            definitions.ReleaseCollection(database=call.database, collection=request.collection_name)
        )
        return common_pb2.Status()

    async def load_partitions(self, request: Any, call: Call) -> Any:
        _refuse_partial_load(request)
        await self._proxy.define(
            definitions.LoadPartitions(
                database=call.database,
                collection=request.collection_name,
                partitions=_named(request),
                replicas=request.replica_number,
            )
        )
        return common_pb2.Status()

    async def release_partitions(self, request: Any, call: Call) -> Any:
        await self._proxy.define(
            definitions.ReleasePartitions(
                database=call.database, collection=request.collection_name, partitions=_named(request)
            )
        )
        return common_pb2.Status()

    async def get_loading_progress(self, request: Any, call: Call) -> Any:
        progress = await self._progress(request, call)
        return milvus_pb2.GetLoadingProgressResponse(progress=progress, refresh_progress=progress)

    async def get_load_state(self, request: Any, call: Call) -> Any:
        try:
            progress = await self._progress(request, call)
        except MishardsError as error:
            if error.kind is Kind.COLLECTION_NOT_FOUND:
                return milvus_pb2.GetLoadStateResponse(state=common_pb2.LoadState.LoadStateNotExist)
            if error.kind not in _NOT_LOADED:
                raise
            return milvus_pb2.GetLoadStateResponse(state=common_pb2.LoadState.LoadStateNotLoad)
        loaded = common_pb2.LoadState.LoadStateLoaded if progress >= 100 else common_pb2.LoadState.LoadStateLoading
        return milvus_pb2.GetLoadStateResponse(state=loaded)

    async def _progress(self, request: Any, call: Call) -> int:
        names = tuple(request.partition_names)
        return await self._proxy.load_progress(call.database, request.collection_name, names)


def _refuse_partial_load(request: Any) -> None:
    if request.load_fields or request.skip_load_dynamic_field:
        raise MishardsError(Kind.UNSUPPORTED, "loading some of the fields (load_fields) is not supported")
    if set(request.resource_groups) - {_DEFAULT_RESOURCE_GROUP}:
        groups = ", ".join(request.resource_groups)
        raise MishardsError(Kind.UNSUPPORTED, f"loading into resource groups is not supported, got {groups}")
    if request.replica_number < 0:
        raise invalid(f"replica_number [{request.replica_number}] is invalid, should be at least 1")


def _named(request: Any) -> tuple[str, ...]:
    if not request.partition_names:
        raise invalid("due to no partition specified: invalid parameter")
    return tuple(request.partition_names)
