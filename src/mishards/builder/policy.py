"""What is worth doing with a collection's files: a pure choice, repeated by every builder from its own mirror.

Nothing here has to be right for answers to be right: each task is a layout commit that succeeds only if its inputs are
still live (P5). It has to be frugal: a segment that will be merged is not indexed first, and merging goes by tiers of
size, so that a row is copied once a tier (size-tiered compaction, as in Cassandra and Lucene).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from mishards import model
from mishards.config import BuilderSettings
from mishards.model import CollectionId, File, FileId, FileKind, PartitionId, Version
from mishards.ports import IndexKind

TIERS = 5  # below the largest; with merge_files 4 the smallest tier ends at a thousandth of segment_bytes
MERGE_INPUTS_MAX = 64  # of one merge (P15)
MATERIALISE_INPUTS_MAX = 64  # of one materialisation (P15)
SETTLED_GROWTH = 3  # a merge at rest takes a segment along that is at most so many times as large as the others
SMALL_SHARE_MAX = 2  # that many times merge_files segments below the largest tier, and the smallest are merged
TOMBSTONE_FILES_MAX = 64  # a segment has not applied; more and they are materialised, as every search names them


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One layout commit to be. `inputs` are the files it replaces or drops, live when it was chosen."""

    kind: ClassVar[str]
    light: ClassVar[bool] = False  # moves no vectors: never waits behind those that do

    collection_id: CollectionId
    shard: int
    inputs: tuple[FileId, ...]

    @property
    def subject(self) -> str:
        """What of the shard the task is about: two tasks of one kind and subject exclude each other."""
        return "all"

    @property
    def name(self) -> str:
        """The name of the lease that claims it."""
        return f"task/{self.collection_id}/{self.shard}/{self.kind}/{self.subject}"


class Merge(Task, frozen=True, kw_only=True):
    """Several segments of one partition become one."""

    kind = "merge"
    partition_id: PartitionId
    tier: int  # of the largest: small segments need not wait until large ones are merged and indexed

    @property
    def subject(self) -> str:
        return f"{self.partition_id}.{self.tier}"


class BuildIndex(Task, frozen=True, kw_only=True):
    """One segment gets the index parts it lacks."""

    kind = "index"
    segment_id: FileId
    indexes: tuple[model.Index, ...]

    @property
    def subject(self) -> str:
        return str(self.segment_id)


class Rewrite(Task, frozen=True, kw_only=True):
    """One segment loses its dead rows."""

    kind = "rewrite"
    segment_id: FileId

    @property
    def subject(self) -> str:
        return str(self.segment_id)


class Materialise(Task, frozen=True, kw_only=True):
    """The tombstones of a shard go into the delete bitmaps of its segments."""

    kind = "materialise"
    light = True


class DropPartition(Task, frozen=True, kw_only=True):
    """The data files of a partition that is not defined any more go."""

    kind = "partition"
    light = True
    partition_id: PartitionId

    @property
    def subject(self) -> str:
        return str(self.partition_id)


class DropTombstones(Task, frozen=True, kw_only=True):
    """Tombstones that every data file of the shard has applied go (P6)."""

    kind = "drop"
    light = True


class Asked(NamedTuple):
    """A compaction: what was written up to the version, whose hybrid timestamp is `ts`."""

    version: Version
    ts: int


URGENCY: tuple[type[Task], ...] = (Merge, BuildIndex, Rewrite, DropPartition, Materialise, DropTombstones)


def choose(
    collection: model.Collection,
    files: Iterable[File],
    index_kind: Callable[[str], IndexKind],
    settings: BuilderSettings,
    busy: Container[FileId] = frozenset(),
    resting: Container[str] = frozenset(),
    settled: bool | None = None,
    expired_ts: int = 0,
    asked: Asked | None = None,
) -> list[Task]:
    """The tasks worth starting, the most urgent kind first; no file is an input of two of them.

    `files` are those live at one version. `busy` files are inputs of tasks under way, `resting` the names of tasks that
    failed lately; neither is chosen. Merging comes first: the new segment gets its index, and the inputs need none.
    `settled`: nothing has been written for a moment, so that a shard without fresh rows is merged further, for searches
    to read few segments; False: that moment is not over, but such segments are not indexed any more, nor are small ones
    (`rest_values`), of which readers scan codes meanwhile: they will be merged; None: never.
    `expired_ts`: rows of a commit with this hybrid timestamp or an older one are as good as dead. `asked`: a compaction
    that somebody waits for; its merges go before the usual ones of their shard.
    """
    shards: dict[int, list[File]] = defaultdict(list)
    for file in files:
        shards[file.shard].append(file)

    tasks: list[Task] = []
    for shard in sorted(shards):
        live = sorted(shards[shard], key=lambda file: file.id)
        idle = [file for file in live if file.id not in busy]
        partitions = _dropped_partitions(idle, collection)
        free = _rest([file for file in idle if file.kind is FileKind.SEGMENT], partitions)
        merges = [task for task in _asked_merges(free, settings, asked) if task.name not in resting]
        merges = merges or [task for task in _merges(free, settings, mergeable) if task.name not in resting]
        free = _rest(free, merges)
        at_rest: list[Merge] = []
        if settled is not None and not merges and not any(file.kind is FileKind.ROWS for file in live):
            at_rest = [task for task in _merges(free, settings, mergeable_at_rest) if task.name not in resting]
        if settled:
            merges += at_rest
            free = _rest(free, at_rest)
        to_index = _rest(free, at_rest)
        values_min = settings.rest_values + 1 if settled is False else 0
        builds = [task for task in _builds(to_index, collection, index_kind, values_min) if task.name not in resting]
        free = _rest(free, builds)
        rewrites = [task for task in _rewrites(free, settings, expired_ts) if task.name not in resting]
        free = _rest(free, rewrites)
        materialisations = _asked_materialisations(free, live, asked) or _materialisations(free, live, settings)
        light = [*partitions, *materialisations, *_drops(idle, live)]
        tasks += [*merges, *builds, *rewrites, *(task for task in light if task.name not in resting)]
    return sorted(tasks, key=lambda task: URGENCY.index(type(task)))


def is_compacted(files: Iterable[File], settings: BuilderSettings, asked: Asked) -> bool:
    """Whether nothing is left to do for a compaction in a collection with these live files."""
    shards: dict[int, list[File]] = defaultdict(list)
    for file in files:
        shards[file.shard].append(file)
    for live in shards.values():
        segments = [file for file in live if file.kind is FileKind.SEGMENT]
        if _asked_merges(segments, settings, asked) or _asked_materialisations(segments, live, asked):
            return False
    return True


def row_bytes(file: File) -> int:
    """The bytes of a segment's rows, vectors and scalars, once its dead ones are gone: what a merge holds in memory."""
    if not file.rows:
        return 0
    bytes = sum(part.bytes for part in file.parts if part.kind in ("vectors", "scalars"))
    return bytes * (file.rows - file.dead) // file.rows


def tier(size: int, settings: BuilderSettings) -> int:
    """The size tier of a segment: 0 if merge_files of its size exceed segment_bytes, and one more each time it shrinks
    to a merge_files-th; TIERS for all that are smaller still."""
    level = 0
    while level < TIERS and size * settings.merge_files <= settings.segment_bytes:
        size *= settings.merge_files
        level += 1
    return level


def _rest(free: Sequence[File], tasks: Iterable[Task]) -> list[File]:
    taken = {file_id for task in tasks for file_id in task.inputs}
    return [file for file in free if file.id not in taken]


def _merges(
    free: Iterable[File],
    settings: BuilderSettings,
    inputs_of: Callable[[Sequence[File], BuilderSettings], list[File]],
) -> list[Merge]:
    """At most one merge a partition."""
    partitions: dict[PartitionId, list[File]] = defaultdict(list)
    for file in free:
        partitions[file.partition_id].append(file)
    return [
        Merge(
            collection_id=inputs[0].collection_id,
            shard=inputs[0].shard,
            inputs=tuple(file.id for file in inputs),
            partition_id=partition_id,
            tier=tier(row_bytes(inputs[-1]), settings),
        )
        for partition_id in sorted(partitions)
        if (inputs := inputs_of(partitions[partition_id], settings))
    ]


def mergeable(segments: Sequence[File], settings: BuilderSettings) -> list[File]:
    """The segments of one partition and shard to merge now, or none: the lowest tier that has merge_files of them; or
    the smallest, when all tiers but the largest hold too many together."""
    by_tier: dict[int, list[File]] = defaultdict(list)
    for segment in sorted(segments, key=lambda file: (row_bytes(file), file.id)):
        by_tier[tier(row_bytes(segment), settings)].append(segment)
    for level in sorted(by_tier, reverse=True):
        fitting = _fitting(by_tier[level], settings.segment_bytes)
        if len(fitting) >= settings.merge_files:
            return fitting

    small = [segment for level in sorted(by_tier, reverse=True) if level for segment in by_tier[level]]
    if len(small) > SMALL_SHARE_MAX * settings.merge_files:
        return _fitting(small[: settings.merge_files], settings.segment_bytes)
    return []


def mergeable_at_rest(segments: Sequence[File], settings: BuilderSettings) -> list[File]:
    """The segments of one partition and shard to merge when nothing is written: as many of the smallest as fit, none
    much larger than the others together, so that a row is copied each time its segment grows by a third."""
    inputs = _fitting(sorted(segments, key=lambda file: (row_bytes(file), file.id)), settings.segment_bytes)
    while len(inputs) > 1:
        others = sum(row_bytes(file) for file in inputs[:-1])
        if row_bytes(inputs[-1]) <= SETTLED_GROWTH * others:
            return inputs
        inputs.pop()
    return []


def mergeable_to_few(segments: Sequence[File], settings: BuilderSettings) -> list[File]:
    """As many of the smallest segments as fit, again and again: in the end no two of those left fit together."""
    inputs = _fitting(sorted(segments, key=lambda file: (row_bytes(file), file.id)), settings.segment_bytes)
    return inputs if len(inputs) > 1 else []


def _asked_merges(free: Iterable[File], settings: BuilderSettings, asked: Asked | None) -> list[Merge]:
    if asked is None:
        return []
    return _merges((file for file in free if file.oldest_ts <= asked.ts), settings, mergeable_to_few)


def _fitting(ascending: Sequence[File], bytes_max: int) -> list[File]:
    """The smallest of them that together stay within the target."""
    fitting: list[File] = []
    total = 0
    for segment in ascending[:MERGE_INPUTS_MAX]:
        total += row_bytes(segment)
        if total > bytes_max:
            break
        fitting.append(segment)
    return fitting


def worthwhile_indexes(
    collection: model.Collection, rows: int, index_kind: Callable[[str], IndexKind], values_min: int = 0
) -> list[tuple[model.Index, int]]:
    """The definitions that a segment of so many rows deserves, with the dimension of their fields; without those over
    fewer than `values_min` numbers."""
    return [
        (definition, field.dim)
        for definition in collection.indexes
        if (field := collection.schema.by_id(definition.field_id)) and field.is_vector
        if rows * field.dim >= values_min and index_kind(definition.type).worthwhile(rows, field.dim)
    ]


def _builds(
    free: Iterable[File], collection: model.Collection, index_kind: Callable[[str], IndexKind], values_min: int
) -> Iterator[BuildIndex]:
    """One task for each segment that lacks the part of a current definition which is worthwhile at its size."""
    for segment in free:
        missing = tuple(
            definition
            for definition, _ in worthwhile_indexes(collection, segment.rows, index_kind, values_min)
            if segment.part("vectors", definition.field_id)
            and not segment.part("index", definition.field_id, definition.id)
        )
        if missing:
            yield BuildIndex(
                collection_id=segment.collection_id,
                shard=segment.shard,
                inputs=(segment.id,),
                segment_id=segment.segment_id,
                indexes=missing,
            )


def _rewrites(free: Iterable[File], settings: BuilderSettings, expired_ts: int) -> Iterator[Rewrite]:
    for segment in free:
        if segment.dead + expired_rows(segment, expired_ts) > settings.dead_share * segment.rows:
            yield Rewrite(
                collection_id=segment.collection_id,
                shard=segment.shard,
                inputs=(segment.id,),
                segment_id=segment.segment_id,
            )


def expired_rows(segment: File, expired_ts: int) -> float:
    """How many of its rows are expired, if they were written evenly over time. A rewrite leaves none, so that a wrong
    guess costs one rewrite."""
    if not segment.oldest_ts or segment.oldest_ts > expired_ts:
        return 0.0
    if segment.newest_ts <= expired_ts:
        return segment.rows
    return segment.rows * (expired_ts - segment.oldest_ts) / (segment.newest_ts - segment.oldest_ts)


def _dropped_partitions(idle: Iterable[File], collection: model.Collection) -> list[DropPartition]:
    defined = {partition.id for partition in collection.partitions}
    gone: dict[PartitionId, list[File]] = defaultdict(list)
    for file in idle:
        if file.kind is not FileKind.TOMBSTONES and file.partition_id not in defined:
            gone[file.partition_id].append(file)
    return [
        DropPartition(
            collection_id=collection.id,
            shard=gone[partition_id][0].shard,
            inputs=tuple(file.id for file in gone[partition_id]),
            partition_id=partition_id,
        )
        for partition_id in sorted(gone)
    ]


def _materialisations(free: Iterable[File], live: Iterable[File], settings: BuilderSettings) -> Iterator[Materialise]:
    """Once the segment furthest behind is too far behind: one task for all that are behind, those furthest first."""
    tombstones = [file for file in live if file.kind is FileKind.TOMBSTONES]
    newest = max((file.added for file in tombstones), default=0)
    behind = sorted((file for file in free if file.horizon < newest), key=lambda file: file.horizon)
    if not behind:
        return
    waiting = [file for file in tombstones if file.added > behind[0].horizon]
    if len(waiting) > TOMBSTONE_FILES_MAX or sum(file.rows for file in waiting) > settings.tombstones_max:
        yield Materialise(
            collection_id=behind[0].collection_id,
            shard=behind[0].shard,
            inputs=tuple(segment.id for segment in behind[:MATERIALISE_INPUTS_MAX]),
        )


def _asked_materialisations(free: Iterable[File], live: Iterable[File], asked: Asked | None) -> list[Materialise]:
    """Of all tombstones up to the version, in the segments that have not applied them."""
    if asked is None:
        return []
    stones = (file.added for file in live if file.kind is FileKind.TOMBSTONES and file.added <= asked.version)
    newest = max(stones, default=0)
    behind = sorted((file for file in free if file.horizon < newest), key=lambda file: (file.horizon, file.id))
    if not behind:
        return []
    inputs = tuple(segment.id for segment in behind[:MATERIALISE_INPUTS_MAX])
    return [Materialise(collection_id=behind[0].collection_id, shard=behind[0].shard, inputs=inputs)]


def _drops(idle: Iterable[File], live: Iterable[File]) -> Iterator[DropTombstones]:
    applied = applied_by_all(live)
    droppable = [file for file in idle if file.kind is FileKind.TOMBSTONES and file.added <= applied]
    if droppable:
        yield DropTombstones(
            collection_id=droppable[0].collection_id,
            shard=droppable[0].shard,
            inputs=tuple(file.id for file in droppable),
        )


def applied_by_all(live: Iterable[File]) -> float:
    """The version up to which every data file of a shard has applied all tombstones; infinite without data files (P6).

    It stays true while later commits come: a later ROWS file is newer than each such tombstone, and the output of a
    layout commit has applied at least what its inputs had (P5).
    """
    return min((horizon(file) for file in live if file.kind is not FileKind.TOMBSTONES), default=math.inf)


def horizon(file: File) -> int:
    """Every tombstone up to that version is applied to the file: for fresh rows, those up to their own."""
    return file.added if file.kind is FileKind.ROWS else file.horizon
