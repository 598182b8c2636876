"""From a consistency level to a version (P10).

Strong asks the metadata service after the search arrived (the mirror coalesces all who wait); the other levels ask only
when what is known is too old for them. Inside, only versions are compared; hybrid timestamps come from clients.
"""

from __future__ import annotations

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import Consistency

CLIENT_EVENTUALLY_TS = 1  # what Milvus clients send as guarantee_timestamp for the levels
CLIENT_BOUNDED_TS = 2


class Versions:
    """Brings a collection's manifest up to what a level demands; then `manifest.version` is the version to use."""

    def __init__(self, mirror: Mirror, clock: Clock, bounded_staleness_s: float) -> None:
        self._mirror = mirror
        self._clock = clock
        self._bounded_staleness_s = bounded_staleness_s

    def suffices(self, manifest: Manifest, level: Consistency, guarantee_ts: int) -> bool:
        """Whether the manifest is new enough as it is. A snapshot always is."""
        if manifest.frozen:
            return True
        if level is Consistency.STRONG or self._is_behind(manifest, level, guarantee_ts):
            return False
        # During an outage there is nothing to wait for: polling goes on, and nothing is acknowledged meanwhile (P14).
        return level is not Consistency.BOUNDED or self._mirror.lost or self._age_s() <= self._bounded_staleness_s

    async def reach(self, manifest: Manifest, level: Consistency, guarantee_ts: int) -> bool:
        """Whether the metadata service had to be asked.

        While it is down a Strong read, or one that must see a write not heard of, fails with METADATA_UNAVAILABLE;
        Bounded goes on with what is known: nothing is acknowledged meanwhile (P14, I17).
        """
        if self.suffices(manifest, level, guarantee_ts):
            return False
        try:
            await self._mirror.refresh()
        except MishardsError as error:
            outlived = level is Consistency.BOUNDED and not self._is_behind(manifest, level, guarantee_ts)
            if error.kind is not Kind.METADATA_UNAVAILABLE or not outlived:
                raise
        return True

    def _is_behind(self, manifest: Manifest, level: Consistency, guarantee_ts: int) -> bool:
        """Whether the client has seen, or written, something newer than the manifest."""
        return level is not Consistency.EVENTUALLY and guarantee_ts > max(CLIENT_BOUNDED_TS, manifest.ts)

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._mirror.observed_s
