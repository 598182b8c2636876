"""The Milvus door: what Milvus clients connect to."""

from __future__ import annotations

from mishards.api.http2.listener import Listener
from mishards.api.milvus.aliases import AliasCalls
from mishards.api.milvus.calls import Table, Workers
from mishards.api.milvus.collections import CollectionCalls
from mishards.api.milvus.compaction import CompactionCalls
from mishards.api.milvus.dispatch import Dispatcher
from mishards.api.milvus.indexes import IndexCalls
from mishards.api.milvus.load import LoadCalls
from mishards.api.milvus.partitions import PartitionCalls
from mishards.api.milvus.read import ReadCalls
from mishards.api.milvus.segments import SegmentCalls
from mishards.api.milvus.snapshots import SnapshotCalls
from mishards.api.milvus.system import SystemCalls
from mishards.api.milvus.transport import UnaryCalls
from mishards.api.milvus.write import WriteCalls
from mishards.clock import Clock
from mishards.config import ProxySettings
from mishards.proxy.requests import ProxyService


class MilvusDoor:
    """Serves one proxy to Milvus clients over gRPC. `version` is Mishards' own."""

    def __init__(
        self, proxy: ProxyService, settings: ProxySettings, clock: Clock, version: str, *, share_port: bool = True
    ) -> None:
        self._workers = Workers()
        table = milvus_calls(proxy, self._workers, clock, version)
        dispatcher = Dispatcher(table, settings.request_bytes_max)
        self._listener = Listener(UnaryCalls(dispatcher, settings.request_bytes_max), share_port=share_port)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port (`port` 0: a free one). SetupError when it cannot be had."""
        return await self._listener.start(host, port)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls so that clients go elsewhere, give those in progress `grace_s`."""
        await self._listener.stop(grace_s)
        self._workers.close()


def milvus_calls(proxy: ProxyService, workers: Workers, clock: Clock, version: str) -> Table:
    """Every method that is served, by its name in Milvus' service."""
    return {
        **SystemCalls(proxy, clock, version).table(),
        **CollectionCalls(proxy).table(),
        **CompactionCalls(proxy).table(),
        **PartitionCalls(proxy).table(),
        **AliasCalls(proxy).table(),
        **IndexCalls(proxy).table(),
        **LoadCalls(proxy).table(),
        **WriteCalls(proxy, workers).table(),
        **ReadCalls(proxy, workers).table(),
        **SegmentCalls(proxy).table(),
        **SnapshotCalls(proxy).table(),
    }
