"""The loop that seals: looks at the fresh rows of the shards held and seals those that are due.

Fresh rows of a shard that nobody owns, since its writer died and nobody has written since, are sealed by whichever
writer sees them lie for long: by several at once without harm, as one of their layout commits wins (P5).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from mishards.clock import Clock
from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import File, FileId
from mishards.writer.leases import ShardLeases
from mishards.writer.pressure import Pressure
from mishards.writer.sealing import Sealer
from mishards.writer.sealing_policy import fresh_rows, is_due
from mishards.writer.shard import Shard

_log = structlog.get_logger(__name__)

CHECK_S = 0.5
ORPHANED_AGES = 3  # times the sealing age: an owner who lives has sealed what is older
ADOPTIONS_MAX = 4  # at once (P15)
REST_S_MAX = 60.0  # after a failure; a second after the first one, then twice as long each time


class _Rest(NamedTuple):
    """Of a shard whose last seals failed."""

    failures: int
    until_s: float  # monotonic


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
        self._waiting_s: dict[tuple[Shard, FileId], float] = {}  # since when it is the oldest of a shard not held
        self._looked_s = 0.0  # for orphans
        self._sealing: set[Shard] = set()
        self._rests: dict[Shard, _Rest] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="background sealing")

    async def stop(self) -> None:
        """A seal that is cut off leaves unreferenced uploads, which are garbage (P12)."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def check(self) -> list[Shard]:
        """One look at all shards held: those that are due, without those that are being sealed or rest."""
        held = set(self._leases.held())
        known = (self._mirror.get(id) for id in {shard.collection_id for shard in held})
        manifests = [manifest for manifest in known if manifest is not None]
        fresh = {shard: rows for shard, rows in _fresh(manifests).items() if shard in held}
        self._pressure.measure(manifests)
        now_s = self._clock.monotonic_s()
        self._first_seen_s = {shard: self._first_seen_s.get(shard, now_s) for shard in fresh}
        self._rests = {shard: rest for shard, rest in self._rests.items() if shard in fresh}
        ages_s = {shard: now_s - seen_s for shard, seen_s in self._first_seen_s.items()}
        busy = self._sealing | {shard for shard, rest in self._rests.items() if now_s < rest.until_s}
        return [
            shard
            for shard, rows in fresh.items()
            if shard not in busy and is_due(rows, self._row_values(shard), ages_s[shard], self._settings)
        ]

    async def adopt(self) -> None:
        """One look at all other shards; returns when some of those that nobody owns and seals are sealed."""
        held, now_s = set(self._leases.held()), self._clock.monotonic_s()
        oldest = [(shard, rows[0].id) for shard, rows in _fresh(self._mirror.manifests()).items() if shard not in held]
        self._waiting_s = {each: self._waiting_s.get(each, now_s) for each in oldest}
        old_s = ORPHANED_AGES * self._settings.seal_age_s
        waiting = (shard for (shard, _), since_s in self._waiting_s.items() if now_s - since_s >= old_s)
        if old := [shard for shard in waiting if shard not in self._sealing]:
            unowned = await self._leases.unowned(old)  # here: a failure inside the group would come out as a group
            async with asyncio.TaskGroup() as seals:
                for shard in unowned[:ADOPTIONS_MAX]:
                    seals.create_task(self._seal(shard))

    async def _run(self) -> None:
        """No look waits for a seal: one that is slow or stuck delays neither the others nor the back-pressure."""
        async with asyncio.TaskGroup() as seals:
            while True:
                await asyncio.sleep(CHECK_S)
                for shard in self.check():
                    seals.create_task(self._seal(shard))
                if self._clock.monotonic_s() - self._looked_s >= self._settings.seal_age_s:
                    self._looked_s = self._clock.monotonic_s()
                    seals.create_task(self._try_to_adopt())

    async def _try_to_adopt(self) -> None:
        with contextlib.suppress(MishardsError):  # the metadata service is down: the next look tries again
            await self.adopt()

    async def _seal(self, shard: Shard) -> None:
        """Whatever fails is tried again after a rest."""
        self._sealing.add(shard)
        try:
            await self._sealer.seal(shard)
        except MishardsError as error:
            self._let_rest(shard)
            expected = error.kind in (Kind.LEASE_HELD, Kind.COLLECTION_NOT_FOUND)  # another is at it, or it was dropped
            level = _log.debug if expected else _log.warning
            level("shard not sealed", collection=shard.collection_id, shard=shard.number, error=error.message)
        except Exception:  # a defect in one collection's rows must not end the sealing of the others
            self._let_rest(shard)
            _log.exception("shard not sealed", collection=shard.collection_id, shard=shard.number)
        else:
            self._first_seen_s.pop(shard, None)
            self._rests.pop(shard, None)
        finally:
            self._sealing.discard(shard)

    def _row_values(self, shard: Shard) -> int:
        """How many numbers the vectors of a row have."""
        manifest = self._mirror.get(shard.collection_id)
        return 0 if manifest is None else sum(field.dim for field in manifest.collection.schema.vectors)

    def _let_rest(self, shard: Shard) -> None:
        failures = self._rests[shard].failures + 1 if shard in self._rests else 1
        rest_s = min(REST_S_MAX, 2.0 ** min(failures - 1, 16))
        self._rests[shard] = _Rest(failures, self._clock.monotonic_s() + rest_s)


def _fresh(manifests: Iterable[Manifest]) -> dict[Shard, list[File]]:
    """The fresh rows of the collections' shards that have some, oldest first."""
    return {
        Shard(manifest.collection.id, number): rows
        for manifest in manifests
        for number, rows in fresh_rows(manifest.live_fresh(), manifest.collection).items()
    }
