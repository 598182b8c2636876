"""What a writer tells of itself: its shards against their bounds (P15), and what became of its commits (P3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from mishards.config import WriterSettings
from mishards.metadata.mirror import Mirror
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.writer.pressure import Pressure
from mishards.writer.shard import Shard

Outcome = Literal["done", "repeated", "refused", "unknown"]


@dataclass(slots=True)
class CommitCounts:
    """Since the start."""

    done: Counter[str] = field(default_factory=Counter)  # by kind
    refused: Counter[str] = field(default_factory=Counter)  # by the kind of error
    unanswered: Counter[Outcome] = field(default_factory=Counter)  # at first
    put_back: int = 0
    lost: int = 0

    def samples(self) -> Iterator[Sample]:
        yield from (c.COMMITS.of(self.done[kind], kind) for kind in ("write", "layout"))
        yield from (c.COMMITS_REFUSED.of(count, reason) for reason, count in self.refused.items())
        yield from (c.COMMITS_UNANSWERED.of(count, outcome) for outcome, count in self.unanswered.items())
        yield c.COMMITS_PUT_BACK.of(self.put_back)
        yield c.COMMITS_LOST.of(self.lost)


def shard_samples(
    held: Iterable[Shard], pressure: Pressure, mirror: Mirror, settings: WriterSettings
) -> Iterator[Sample]:
    """Of the shards held: those of others are told by their owners, and one that nobody holds nobody writes to."""
    for shard in held:
        manifest = mirror.get(shard.collection_id)
        if manifest is None:
            continue
        labels = (manifest.collection.database, manifest.collection.name, shard.number)
        fill = pressure.fill(shard)
        yield c.FRESH_BYTES.of(fill.bytes, *labels)
        yield c.FRESH_FILES.of(fill.files, *labels)
        yield c.TOMBSTONES.of(fill.tombstones, *labels)
        yield c.SEGMENTS.of(fill.segments, *labels)
        yield c.FULLNESS.of(pressure.fullness(shard).share, *labels)
    yield c.FRESH_BYTES_LIMIT.of(settings.fresh_bytes_max)
    yield c.FRESH_FILES_LIMIT.of(settings.fresh_files_max)
    yield c.TOMBSTONES_LIMIT.of(settings.tombstones_max)
    yield c.SEGMENTS_LIMIT.of(settings.segments_max)
