"""Calls about snapshots. A restore is done when it is answered, so its job is found finished: the job's number is the
new collection's, which remembers what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mishards.api.milvus.calls import Call, Table
from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.api.milvus.translate_schema import unix_ms
from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DEFAULT_DATABASE, Collection
from mishards.proxy.requests import ProxyService
from mishards.schema.names import check_collection_name, check_snapshot_name

DONE_PERCENT = 100


class SnapshotCalls:
    def __init__(self, proxy: ProxyService) -> None:
        self._proxy = proxy

    def table(self) -> Table:
        return {
            "CreateSnapshot": self.create,
            "DropSnapshot": self.drop,
            "ListSnapshots": self.list,
            "DescribeSnapshot": self.describe,
            "RestoreSnapshot": self.restore,
            "GetRestoreSnapshotState": self.restore_state,
            "ListRestoreSnapshotJobs": self.restore_jobs,
            "PinSnapshotData": self.pin,
            "UnpinSnapshotData": self.unpin,
        }

    async def create(self, request: Any, call: Call) -> Any:
        """`compaction_protection_seconds` asks for what holds anyway: merging harms no snapshot."""
        check_snapshot_name(request.name)
        await self._proxy.snapshots.create(call.database, request.collection_name, request.name, request.description)
        return common_pb2.Status()

    async def drop(self, request: Any, call: Call) -> Any:
        await self._proxy.snapshots.drop(call.database, request.collection_name, request.name)
        return common_pb2.Status()

    async def list(self, request: Any, call: Call) -> Any:
        pins = await self._proxy.snapshots.list(call.database, request.collection_name)
        return milvus_pb2.ListSnapshotsResponse(snapshots=[pin.name for pin in pins])

    async def describe(self, request: Any, call: Call) -> Any:
        pin = await self._proxy.snapshots.describe(call.database, request.collection_name, request.name)
        return milvus_pb2.DescribeSnapshotResponse(
            name=pin.name,
            description=pin.description,
            collection_name=pin.definition.name,
            partition_names=[partition.name for partition in pin.definition.partitions],
            create_ts=pin.created_ms,
        )

    async def restore(self, request: Any, call: Call) -> Any:
        """`rewrite_data` would change no row: what is restored shares files with what it came from."""
        target = request.target_collection_name
        if request.target_db_name not in ("", DEFAULT_DATABASE):
            raise MishardsError(Kind.DATABASE_NOT_FOUND, f"database not found[database={request.target_db_name}]")
        check_collection_name(target)
        restored = await self._proxy.snapshots.restore(call.database, request.collection_name, request.name, target)
        return milvus_pb2.RestoreSnapshotResponse(job_id=restored.id)

    async def restore_state(self, request: Any, call: Call) -> Any:
        jobs = await self._restored(call.database)
        found = next((one for one in jobs if one.id == request.job_id), None)
        if found is None:
            raise invalid(f"restore job not found[job_id={request.job_id}]")
        return milvus_pb2.GetRestoreSnapshotStateResponse(info=_job(found))

    async def restore_jobs(self, request: Any, call: Call) -> Any:
        wanted = request.collection_name
        jobs = [_job(one) for one in await self._restored(call.database) if wanted in ("", one.name)]
        return milvus_pb2.ListRestoreSnapshotJobsResponse(jobs=jobs)

    async def pin(self, request: Any, call: Call) -> Any:
        id = await self._proxy.snapshots.hold(
            call.database, request.collection_name, request.name, float(request.ttl_seconds)
        )
        return milvus_pb2.PinSnapshotDataResponse(pin_id=id)

    async def unpin(self, request: Any, call: Call) -> Any:
        await self._proxy.snapshots.release(request.pin_id)
        return common_pb2.Status()

    async def _restored(self, database: str) -> Sequence[Collection]:
        return [one for one in await self._proxy.collections(database) if one.origin]


def _job(restored: Collection) -> Any:
    return milvus_pb2.RestoreSnapshotInfo(
        job_id=restored.id,
        snapshot_name=restored.origin.rpartition("@")[2],
        db_name=restored.database,
        collection_name=restored.name,
        state=milvus_pb2.RestoreSnapshotState.RestoreSnapshotCompleted,
        progress=DONE_PERCENT,
        start_time=unix_ms(restored.created_ts),
    )
