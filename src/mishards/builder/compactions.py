"""Compactions that clients asked for: which collections this builder is to compact further, and when one is done.

Every builder looks by itself and works for all of them; whoever sees first that nothing is left to do says so, several
without harm (I19).
"""

from __future__ import annotations

import asyncio

import structlog
from msgspec.structs import replace

from mishards.builder.policy import Asked, is_compacted
from mishards.clock import Clock
from mishards.config import BuilderSettings
from mishards.metadata.compactions import Compaction, record, wanted
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId, Version
from mishards.ports import MetadataStore

LOOK_S_MAX = 2.0  # between looks, or the builder's interval if that is longer

log = structlog.get_logger(__name__)


class Compactions:
    """`asked`: what is wanted of each collection now, the newest wish of several."""

    def __init__(self, store: MetadataStore, mirror: Mirror, clock: Clock, settings: BuilderSettings) -> None:
        self.asked: dict[CollectionId, Asked] = {}
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._settings = settings
        self._looked_s = float("-inf")  # monotonic

    async def look(self) -> None:
        """Learn what is wanted, unless that was done just now, and tell what is done."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < LOOK_S_MAX:
            return
        self._looked_s = now_s
        self.asked = {}
        for compaction in await wanted(self._store):
            if not await self._finish(compaction):
                self.asked[compaction.collection_id] = Asked(compaction.version, compaction.ts)

    async def _finish(self, compaction: Compaction) -> bool:
        """Whether there is nothing left to do for it; if so, it is on record."""
        manifest = self._mirror.get(compaction.collection_id)
        if manifest is None or manifest.version < compaction.version:
            await self._mirror.refresh()
            manifest = self._mirror.get(compaction.collection_id)
        done = compaction.version
        if manifest is not None:  # else the collection was dropped
            live, asked = manifest.live(), Asked(compaction.version, compaction.ts)
            if not await asyncio.to_thread(is_compacted, live, self._settings, asked):
                return False
            done = manifest.version
        await record(self._store, replace(compaction, done=Version(max(1, done))))
        log.info("compaction done", compaction=compaction.id, collection=compaction.collection_id)
        return True
