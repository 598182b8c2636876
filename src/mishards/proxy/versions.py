"""From a consistency level to a version (P10).

Strong asks the metadata service after the search arrived (the mirror coalesces all who wait); the other levels ask only
when what is known is too old for them. Inside, only versions are compared; hybrid timestamps come from clients.
"""

from __future__ import annotations

from mishards.clock import Clock
from mishards.metadata.mirror import Manifest, Mirror
from mishards.model import Consistency

CLIENT_EVENTUALLY_TS = 1  # what Milvus clients send as guarantee_timestamp for the levels
CLIENT_BOUNDED_TS = 2


class Versions:
    """Brings a collection's manifest up to what a level demands; then `manifest.version` is the version to use."""

    def __init__(self, mirror: Mirror, clock: Clock, bounded_staleness_s: float) -> None:
        self._mirror = mirror
        self._clock = clock
        self._bounded_staleness_s = bounded_staleness_s

    async def reach(self, manifest: Manifest, level: Consistency, guarantee_ts: int) -> None:
        """METADATA_UNAVAILABLE when the level cannot be kept while the metadata service is down (P14)."""
        if self._too_old(manifest, level, guarantee_ts):
            await self._mirror.refresh()

    def _too_old(self, manifest: Manifest, level: Consistency, guarantee_ts: int) -> bool:
        if level is Consistency.STRONG:
            return True
        if level is Consistency.EVENTUALLY:
            return False
        if guarantee_ts > CLIENT_BOUNDED_TS and manifest.ts < guarantee_ts:
            return True  # the client has seen, or written, something newer
        age_s = self._clock.monotonic_s() - self._mirror.observed_s
        return level is Consistency.BOUNDED and age_s > self._bounded_staleness_s
