"""What is to be sealed: pure choices over a collection's files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mishards.config import WriterSettings
from mishards.model import Collection, File, FileKind, Version

BATCH_BYTES_MAX = 512 << 20  # of fresh rows that are sealed at once: a segment's target size, and what memory bears
SCANNED_AGE_S = 4.0  # fresh rows are sealed for what they cost searches no sooner: faster loads make larger segments


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one seal. `rows`: fresh files, oldest first. `tombstones`: all that can kill one of their rows.
    `horizon`: the version of the snapshot; every tombstone up to it is among them or older than all rows. `seen`: that
    version, and the uuid of its commit."""

    collection: Collection
    rows: tuple[File, ...]
    tombstones: tuple[File, ...]
    horizon: Version
    seen: tuple[Version, str]


def fresh_rows(live: Iterable[File], collection: Collection) -> dict[int, list[File]]:
    """The fresh rows among the live files by shard, oldest first. Those of an unknown partition are left out: either it
    was dropped, and they will be removed with it, or its definition has not arrived yet."""
    partitions = {partition.id for partition in collection.partitions}
    found: defaultdict[int, list[File]] = defaultdict(list)
    for file in live:
        if file.kind is FileKind.ROWS and file.partition_id in partitions:
            found[file.shard].append(file)
    for rows in found.values():
        rows.sort(key=lambda file: (file.added, file.id))
    return dict(found)


def is_due(rows: Sequence[File], row_values: int, age_s: float, settings: WriterSettings) -> bool:
    """Whether a shard's fresh rows are large, many or old enough, or cost searches too much.

    `row_values`: numbers in the vectors of one row. `age_s`: since the first of the rows was seen. Every search reads
    all vectors of fresh rows: by then a segment with an index is cheaper, unless a bulk load would make many of them.
    """
    if not rows:
        return False
    bytes = sum(file.bytes for file in rows)
    values = row_values * sum(file.rows for file in rows)
    return (
        bytes >= settings.seal_bytes
        or len(rows) >= settings.seal_files
        or age_s >= settings.seal_age_s
        or (values >= settings.seal_values and age_s >= SCANNED_AGE_S)
    )


def next_batch(
    live: Sequence[File], collection: Collection, shard: int, version: Version, head: str = ""
) -> Batch | None:
    """The oldest fresh rows of a shard, as much as is sealed at once; None without any. `live`: fresh files at
    `version`, the commit `head`, others too without harm."""
    rows = fresh_rows(live, collection).get(shard)
    if not rows:
        return None
    bytes, count = 0, 0
    while count < len(rows) and (count == 0 or bytes + rows[count].bytes <= BATCH_BYTES_MAX):
        bytes += rows[count].bytes
        count += 1
    tombstones = (
        file
        for file in live
        if file.kind is FileKind.TOMBSTONES
        and file.shard == shard
        and file.added > rows[0].added  # an older one kills none of them (P4)
    )
    return Batch(collection, tuple(rows[:count]), tuple(tombstones), version, (version, head))
