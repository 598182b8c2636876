"""Back-pressure (P15): how full each shard is of what has yet to be sealed, merged or applied, and what writes feel.

At 80 % of a bound writes slow down, at 100 % rows are refused; deletes never are, as they make room. The numbers are
those of the sealer's last check, which knows the collections held, or of the first write since then, plus what was
committed later.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
import structlog

from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import NOTHING, Manifest
from mishards.model import CollectionId, FileKind, Version
from mishards.writer.shard import Shard

SLOW_SHARE = 0.8
PAUSE_S_MAX = 0.2  # of one write, just below the bound

_log = structlog.get_logger(__name__)


class Fill(msgspec.Struct):
    """What a shard holds of everything that is bounded."""

    bytes: int = 0  # of fresh rows
    files: int = 0  # of fresh rows
    tombstones: int = 0  # rows of tombstones
    segments: int = 0


class Fullness(NamedTuple):
    """The bound that a shard is nearest to, or furthest beyond."""

    share: float
    what: str
    value: int
    limit: int
    setting: str


class _Segments(NamedTuple):
    """How many a collection has."""

    layout: Version
    by_shard: Counter[int]


def pause_s(share: float) -> float:
    """How long a write waits: nothing below 80 % of the limit, then growing evenly."""
    over = (share - SLOW_SHARE) / (1 - SLOW_SHARE)
    return min(max(over, 0.0), 1.0) * PAUSE_S_MAX


class Pressure:
    """How full the shards are."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._fills: dict[Shard, Fill] = {}
        self._segments: dict[CollectionId, _Segments] = {}  # of all collections that were counted
        self._committed: dict[CollectionId, Version] = {}  # the newest of this writer, until the manifest has it
        self._full: set[Shard] = set()  # that refused a write, until they have room again

    def measure(self, manifests: Iterable[Manifest]) -> None:
        """Replace all numbers by those of these collections; of one that does not know yet what was committed here,
        what was counted goes on to hold."""
        known, fills, committed = self._segments, self._fills, self._committed
        self._segments, self._fills, self._committed = {}, {}, {}
        for manifest in manifests:
            collection_id = manifest.collection.id
            version = committed.get(collection_id, NOTHING)
            if collection_id in known and manifest.version < version:
                self._committed[collection_id] = version
                self._segments[collection_id] = known[collection_id]
                self._fills |= {shard: fill for shard, fill in fills.items() if shard.collection_id == collection_id}
            else:
                self._count(manifest, known)
        for shard in [shard for shard in self._full if self.fullness(shard).share < 1]:
            self._full.discard(shard)
            _log.info("shard takes rows again", collection=shard.collection_id, shard=shard.number)

    def add(self, shard: Shard, bytes: int, version: Version) -> None:
        """One more file of fresh rows, committed as that version."""
        fill = self._fills.setdefault(shard, Fill())
        fill.bytes += bytes
        fill.files += 1
        self._committed[shard.collection_id] = version

    def fell_back(self, collection_id: CollectionId) -> None:
        """What was committed here may be lost."""
        self._committed.pop(collection_id, None)

    async def admit(self, manifest: Manifest, shards: Iterable[Shard]) -> None:
        """Let a write of rows to those of the collection pass, later if a shard is nearly full. RATE_LIMIT when one
        is."""
        if manifest.collection.id not in self._segments:
            self._count(manifest, {})
        found = {shard: self.fullness(shard) for shard in shards}
        fullest = max(found, key=lambda shard: found[shard].share)
        share, what, value, limit, setting = found[fullest]
        if share >= 1:
            message = (
                f"shard {fullest.number} of collection {fullest.collection_id} holds {value} {what}; "
                f"the limit is {limit} ({setting})"
            )
            if fullest not in self._full:
                self._full.add(fullest)
                _log.warning("shard refuses rows", reason=message)
            raise MishardsError(Kind.RATE_LIMIT, message)
        if wait_s := pause_s(share):
            await asyncio.sleep(wait_s)

    def fill(self, shard: Shard) -> Fill:
        """What the shard holds, as far as it was counted."""
        return self._fills.get(shard) or Fill()

    def fullness(self, shard: Shard) -> Fullness:
        """How near the shard is to the bound that it is nearest to."""
        fill, bounds = self.fill(shard), self._settings
        return max(
            _fullness("bytes of rows that are not in segments yet", fill.bytes, bounds, "fresh_bytes_max"),
            _fullness("files of rows that are not in segments yet", fill.files, bounds, "fresh_files_max"),
            _fullness("deletes that are not applied to all segments yet", fill.tombstones, bounds, "tombstones_max"),
            _fullness("segments", fill.segments, bounds, "segments_max"),
        )

    def _count(self, manifest: Manifest, known: Mapping[CollectionId, _Segments]) -> None:
        """One collection; its segments only if the layout is not `known`."""
        collection_id = manifest.collection.id
        segments = known.get(collection_id)
        if segments is None or segments.layout != manifest.layout:
            live = Counter(file.shard for file in manifest.segments.values() if not file.removed)
            segments = _Segments(manifest.layout, live)
        self._segments[collection_id] = segments
        fills = {number: Fill(segments=count) for number, count in segments.by_shard.items()}
        partitions = {partition.id for partition in manifest.collection.partitions}
        for file in manifest.live_fresh():
            fill = fills.setdefault(file.shard, Fill())
            if file.kind is FileKind.TOMBSTONES:
                fill.tombstones += file.rows
            elif file.partition_id in partitions:  # others go with their partition
                fill.bytes += file.bytes
                fill.files += 1
        self._fills |= {Shard(collection_id, number): fill for number, fill in fills.items()}


def _fullness(what: str, value: int, bounds: WriterSettings, name: str) -> Fullness:
    limit: int = getattr(bounds, name)
    return Fullness(value / limit, what, value, limit, f"writer.{name}")
