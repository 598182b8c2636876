"""Calls about the server itself: who answers, which version, how healthy, which databases."""

from __future__ import annotations

from typing import Any, Final

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.clock import Clock
from mishards.model import DEFAULT_DATABASE
from mishards.proxy.requests import ProxyService

_MILVUS_VERSION: Final = "v2.6.0"  # whose behaviour clients may expect; some parse the vX.Y.Z
_DATABASE_ID: Final = 1
_IDENTIFIER_HEX_DIGITS: Final = 15  # a positive int64


class SystemCalls:
    def __init__(self, proxy: ProxyService, clock: Clock, version: str) -> None:
        self._proxy = proxy
        self._clock = clock
        self._version = f"{_MILVUS_VERSION}-mishards-{version}"

    def table(self) -> Table:
        return {
            "Connect": self.connect,
            "GetVersion": self.get_version,
            "CheckHealth": self.check_health,
            "GetComponentStates": self.get_component_states,
            "AllocTimestamp": self.alloc_timestamp,
            "ListDatabases": self.list_databases,
            "DescribeDatabase": self.describe_database,
        }

    async def connect(self, request: Any, call: Call) -> Any:
        alone = len(self._proxy.members()) <= 1
        return milvus_pb2.ConnectResponse(
            identifier=int(self._clock.token()[:_IDENTIFIER_HEX_DIGITS], 16),
            server_info=common_pb2.ServerInfo(
                build_tags=self._version, deploy_mode="STANDALONE" if alone else "DISTRIBUTED"
            ),
        )

    async def get_version(self, request: Any, call: Call) -> Any:
        return milvus_pb2.GetVersionResponse(version=self._version)

    async def check_health(self, request: Any, call: Call) -> Any:
        reasons = self._proxy.unhealthy()
        return milvus_pb2.CheckHealthResponse(isHealthy=not reasons, reasons=reasons)

    async def get_component_states(self, request: Any, call: Call) -> Any:
        state = common_pb2.StateCode.Abnormal if self._proxy.unhealthy() else common_pb2.StateCode.Healthy
        return milvus_pb2.ComponentStates(state=milvus_pb2.ComponentInfo(role="proxy", state_code=state))

    async def alloc_timestamp(self, request: Any, call: Call) -> Any:
        return milvus_pb2.AllocTimestampResponse(timestamp=await self._proxy.fresh_ts())

    async def list_databases(self, request: Any, call: Call) -> Any:
        return milvus_pb2.ListDatabasesResponse(
            db_names=[DEFAULT_DATABASE], created_timestamp=[0], db_ids=[_DATABASE_ID]
        )

    async def describe_database(self, request: Any, call: Call) -> Any:
        return milvus_pb2.DescribeDatabaseResponse(db_name=call.database, dbID=_DATABASE_ID)
