"""What is sealed, and when: pure choices."""

import pytest
from writer_house import SCHEMA

from mishards.config import WriterSettings
from mishards.model import Collection, CollectionId, File, FileId, FileKind, Partition, PartitionId, Version
from mishards.writer.sealing_policy import BATCH_BYTES_MAX, SCANNED_AGE_S, fresh_rows, is_due, next_batch

BOOKS = Collection(
    id=CollectionId(1),
    name="books",
    schema=SCHEMA,
    created_ts=1,
    updated_ts=1,
    partitions=(Partition(PartitionId(7), "_default", 1),),
)
SETTINGS = WriterSettings(seal_bytes=100, seal_files=3, seal_age_s=60, seal_values=4000)


def file(
    id: int, kind: FileKind = FileKind.ROWS, *, bytes: int = 10, rows: int = 1, shard: int = 0, partition: int = 7
) -> File:
    """A live file of commit `id`."""
    return File(
        id=FileId(id),
        collection_id=BOOKS.id,
        shard=shard,
        kind=kind,
        rows=rows,
        bytes=bytes,
        added=Version(id),
        partition_id=PartitionId(partition),
    )


def test_fresh_rows_are_those_live_by_shard_oldest_first() -> None:
    """Other kinds and rows of unknown partitions are no fresh rows."""
    files = [file(3), file(1), file(2, shard=1), file(5, FileKind.SEGMENT), file(6, partition=99)]

    assert fresh_rows(files, BOOKS) == {0: [file(1), file(3)], 1: [file(2, shard=1)]}


@pytest.mark.parametrize(
    ("files", "age_s", "due"),
    [
        ([], 1000, False),
        ([file(1)], 59, False),
        ([file(1)], 60, True),
        ([file(1), file(2)], 0, False),
        ([file(1), file(2), file(3)], 0, True),
        ([file(1, bytes=100)], 0, True),
        ([file(1, rows=500)], SCANNED_AGE_S, True),
        ([file(1, rows=499)], SCANNED_AGE_S, False),
        ([file(1, rows=500)], 0, False),
    ],
)
def test_a_shard_is_due_by_bytes_files_or_age(files: list[File], age_s: float, due: bool) -> None:
    """Each of the limits alone makes a shard due, that of the numbers searched only after a while; an empty one never
    is."""
    assert is_due(files, 8, age_s, SETTINGS) is due


def test_a_batch_is_bounded_and_starts_with_the_oldest() -> None:
    """A batch takes the oldest rows up to the limit, at least one file."""
    large = [file(id, bytes=BATCH_BYTES_MAX // 2) for id in (3, 2, 1)]
    huge = [file(1, bytes=2 * BATCH_BYTES_MAX), file(2)]

    first, alone = next_batch(large, BOOKS, 0, Version(3)), next_batch(huge, BOOKS, 0, Version(2))

    assert first is not None
    assert alone is not None
    assert [each.id for each in first.rows] == [1, 2]
    assert [each.id for each in alone.rows] == [1]
    assert next_batch(large, BOOKS, 1, Version(3)) is None


def test_a_batch_has_the_tombstones_that_can_kill_its_rows() -> None:
    """Tombstones newer than the oldest row are in the batch, older ones and those of other shards are not."""
    stones = [file(id, FileKind.TOMBSTONES, partition=0) for id in (1, 2, 4)]
    elsewhere = file(5, FileKind.TOMBSTONES, shard=1, partition=0)

    batch = next_batch([*stones, elsewhere, file(2), file(3)], BOOKS, 0, Version(9))

    assert batch is not None
    assert [each.id for each in batch.tombstones] == [4]
    assert batch.horizon == 9
