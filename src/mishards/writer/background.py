"""The loop that seals: looks at the fresh rows of the shards held and seals those that are due."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mishards.clock import Clock
from mishards.config import WriterSettings
from mishards.errors import MishardsError
from mishards.metadata.mirror import Mirror
from mishards.model import File
from mishards.writer.leases import Shard, ShardLeases
from mishards.writer.pressure import Pressure
from mishards.writer.sealing import Sealer
from mishards.writer.sealing_policy import fresh_rows, is_due

_log = structlog.get_logger(__name__)

CHECK_S = 0.5


class BackgroundSealing:
    """Keeps the shards of this writer small in fresh rows, and tells the back-pressure how small they are."""

    def __init__(
        self,
        sealer: Sealer,
        mirror: Mirror,
        leases: ShardLeases,
        pressure: Pressure,
        clock: Clock,
        settings: WriterSettings,
    ) -> None:
        self._sealer = sealer
        self._mirror = mirror
        self._leases = leases
        self._pressure = pressure
        self._clock = clock
        self._settings = settings
        self._first_seen_s: dict[Shard, float] = {}  # monotonic, since when a shard has fresh rows
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="background sealing")

    async def stop(self) -> None:
        """A seal that is cut off leaves unreferenced uploads, which are garbage (P12)."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def check(self) -> None:
        """One look at all shards held; returns when those that are due are sealed."""
        fresh = self._fresh()
        self._pressure.set({shard: sum(file.bytes for file in rows) for shard, rows in fresh.items()})
        now_s = self._clock.monotonic_s()
        self._first_seen_s = {shard: self._first_seen_s.get(shard, now_s) for shard in fresh}
        async with asyncio.TaskGroup() as seals:
            for shard, rows in fresh.items():
                if is_due(rows, now_s - self._first_seen_s[shard], self._settings):
                    seals.create_task(self._seal(shard))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check()

    def _fresh(self) -> dict[Shard, list[File]]:
        held = set(self._leases.held())
        found: dict[Shard, list[File]] = {}
        for collection_id in {shard.collection_id for shard in held}:
            manifest = self._mirror.get(collection_id)
            if manifest is None:
                continue
            for number, rows in fresh_rows(manifest.live(), manifest.collection).items():
                shard = Shard(collection_id, number)
                if shard in held:
                    found[shard] = rows
        return found

    async def _seal(self, shard: Shard) -> None:
        try:
            await self._sealer.seal(shard)
        except MishardsError as error:  # the next check tries again
            _log.warning("shard not sealed", collection=shard.collection_id, shard=shard.number, error=error.message)
        except Exception:  # a defect in one collection's rows must not end the sealing of the others
            _log.exception("shard not sealed", collection=shard.collection_id, shard=shard.number)
        else:
            self._first_seen_s.pop(shard, None)
