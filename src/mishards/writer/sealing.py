"""Sealing: the fresh rows of a shard become one segment a partition, by a layout commit that changes no answer (P5).

The tombstones of the snapshot are applied on the way and stay listed: older segments need them still; the builder drops
them when nothing does (P6). Whoever else removed an input meanwhile wins: the seal starts over from a new snapshot.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import File, FileId, FileKind, Part, PartitionId
from mishards.ports import CommitRequest, Storage
from mishards.segment.fresh import decode_rows, decode_tombstones
from mishards.segment.rewrite import Input, live_table, versioned
from mishards.segment.write import SegmentFiles, write_segment
from mishards.writer.leases import ShardLeases
from mishards.writer.publishing import REFUSALS, Publisher
from mishards.writer.sealing_policy import Batch, next_batch
from mishards.writer.shard import Shard
from mishards.writer.uploading import discard, put_all

_log = structlog.get_logger(__name__)

SEALS_AT_ONCE = 2  # each holds a batch in memory
TRIES_MAX = 5  # of one seal against others who change its inputs
PUBLISH_S_MAX = 30.0  # to learn the outcome of a layout commit


class _Sealed(NamedTuple):
    partition_id: PartitionId
    files: SegmentFiles


class Sealer:
    """Seals shards, one seal of a shard at a time."""

    def __init__(
        self,
        publisher: Publisher,
        storage: Storage,
        mirror: Mirror,
        ids: IdBlocks,
        leases: ShardLeases,
        clock: Clock,
        executor: Executor,
        scratch: Path,
    ) -> None:
        """`scratch`: a local directory for segments on their way to storage."""
        self._publisher = publisher
        self._storage = storage
        self._mirror = mirror
        self._ids = ids
        self._leases = leases
        self._clock = clock
        self._executor = executor
        self._scratch = scratch
        self._busy: WeakValueDictionary[Shard, asyncio.Lock] = WeakValueDictionary()  # while somebody seals or waits
        self._room = asyncio.Semaphore(SEALS_AT_ONCE)

    async def seal(self, shard: Shard) -> None:
        """Afterwards no rows that this process' mirror knew at the call are fresh. CONFLICT (others were faster
        TRIES_MAX times), LEASE_HELD, FENCED, STORAGE_UNAVAILABLE, METADATA_UNAVAILABLE."""
        async with self._busy.setdefault(shard, asyncio.Lock()):
            manifest = self._mirror.get(shard.collection_id)
            target = 0 if manifest is None else manifest.version
            tries = 0
            while (batch := self._next_batch(shard)) is not None and batch.rows[0].added <= target:
                try:
                    async with self._room:
                        await self._seal_batch(shard, batch)
                except MishardsError as error:
                    tries += 1
                    if error.kind not in (Kind.CONFLICT, Kind.GONE) or tries == TRIES_MAX:
                        raise
                    await self._mirror.refresh()

    def _next_batch(self, shard: Shard) -> Batch | None:
        manifest = self._mirror.get(shard.collection_id)
        if manifest is None:
            return None
        return next_batch(manifest.live_fresh(), manifest.collection, shard.number, manifest.version, manifest.head)

    async def _seal_batch(self, shard: Shard, batch: Batch) -> None:
        payloads = await self._read([*batch.rows, *batch.tombstones])
        async with self._leases.claim_seal(shard) as (lease_name, nonce):
            added = await self._store_segments(shard, batch, payloads, nonce)
            request = CommitRequest(
                collection_id=shard.collection_id,
                uuid=self._clock.token(),
                kind="layout",
                now_ms=self._clock.unix_ms(),
                leases=((lease_name, nonce),),
                added=tuple(added),
                removed=tuple(file.id for file in batch.rows),
                made_of=(batch.seen,),
            )
            try:
                await self._publisher.publish(request, self._clock.monotonic_s() + PUBLISH_S_MAX)
            except MishardsError as error:
                if error.kind in REFUSALS:
                    await discard(self._storage, added)
                raise
        _log.debug("shard sealed", collection=batch.collection.name, shard=shard.number, files=len(batch.rows))

    async def _read(self, files: Sequence[File]) -> dict[FileId, bytes]:
        """The payloads of fresh files, from the metadata service or storage."""
        payloads = dict(await self._mirror.payloads([file for file in files if file.inline]))
        for file in files:
            if not file.inline:
                payloads[file.id] = await self._storage.get(file.parts[0].path)
        return payloads

    async def _store_segments(
        self, shard: Shard, batch: Batch, payloads: Mapping[FileId, bytes], nonce: str
    ) -> list[File]:
        loop = asyncio.get_running_loop()
        directory = self._scratch / self._clock.token()
        try:
            sealed = await loop.run_in_executor(self._executor, _write, batch, payloads, shard, directory)
            return [await self._upload(shard, each, nonce, batch) for each in sealed]
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _upload(self, shard: Shard, sealed: _Sealed, nonce: str, batch: Batch) -> File:
        id = FileId(await self._ids.take(1))
        puts, parts = [], []
        for local in sealed.files.parts:
            path = f"{shard.collection_id}/{shard.number}/{nonce}/{self._clock.token()}.{local.kind}"
            puts.append(partial(self._storage.put_file, path, local.path))
            parts.append(Part(kind=local.kind, path=path, bytes=local.bytes, field_id=local.field_id))
        await put_all(puts)
        return File(
            id=id,
            collection_id=shard.collection_id,
            shard=shard.number,
            kind=FileKind.SEGMENT,
            rows=sealed.files.rows,
            bytes=sum(part.bytes for part in parts),
            partition_id=sealed.partition_id,
            segment_id=id,
            horizon=batch.horizon,
            pk_min=sealed.files.pk_min,
            pk_max=sealed.files.pk_max,
            oldest_ts=sealed.files.oldest_ts,
            newest_ts=sealed.files.newest_ts,
            parts=tuple(parts),
        )


def _write(batch: Batch, payloads: Mapping[FileId, bytes], shard: Shard, directory: Path) -> list[_Sealed]:
    """One local segment for each partition that has live rows."""
    schema = batch.collection.schema
    pk = schema.primary.column
    stones = [(file.added, decode_tombstones(payloads[file.id])) for file in batch.tombstones]
    sealed = []
    for partition in batch.collection.partitions:
        inputs = [
            Input(versioned(decode_rows(payloads[file.id]), file.added, file.newest_ts), partition.id)
            for file in batch.rows
            if file.partition_id == partition.id
        ]
        rows = live_table(inputs, stones, pk) if inputs else None
        if rows is None or rows.num_rows == 0:
            continue
        target = directory / str(partition.id)
        target.mkdir(parents=True)
        sealed.append(_Sealed(partition.id, write_segment(rows, schema, target, shard.collection_id, shard.number)))
    return sealed
