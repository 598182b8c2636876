"""Merging further when nothing is written: few segments for searches to read, few copies of a row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from building import INDEX, Shop

from mishards.builder.node import SETTLED_S
from mishards.builder.policy import BuildIndex, Merge, choose, mergeable_at_rest
from mishards.config import MIB, BuilderSettings
from mishards.model import (
    Collection,
    CollectionId,
    DataType,
    Field,
    FieldId,
    File,
    FileId,
    FileKind,
    Part,
    Partition,
    PartitionId,
    Schema,
)

SETTINGS = BuilderSettings(segment_bytes=1024 * MIB, rest_values=1)
SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=INDEX.field_id, name="vector", type=DataType.FLOAT_VECTOR, dim=4),
    )
)
INDEXED = Collection(
    id=CollectionId(1),
    name="books",
    schema=SCHEMA,
    created_ts=0,
    updated_ts=0,
    indexes=(INDEX,),
    partitions=(Partition(PartitionId(1), "_default", 0),),
)


class Worthwhile:
    """An index type that every segment deserves."""

    def worthwhile(self, rows: int, dim: int) -> bool:
        return True


def kind_named(name: str) -> Any:
    return Worthwhile()


def segment(number: int, size: int) -> File:
    return a_file(
        number,
        kind=FileKind.SEGMENT,
        segment_id=FileId(number),
        bytes=size,
        parts=(Part(kind="vectors", path=f"{number}", bytes=size, field_id=INDEX.field_id),),
    )


def a_file(number: int, **values: Any) -> File:
    known = {"id": FileId(number), "collection_id": CollectionId(1), "shard": 0, "partition_id": PartitionId(1)}
    return File(**{**known, "rows": 10, "bytes": 1, **values})


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([64, 38], [38, 64]),
        ([64, 21], []),  # each merge must make the largest grow by a third
        ([500, 1, 2], [1, 2]),
        ([1, 1, 4, 12, 400], [1, 1, 4, 12]),
        ([600, 600], []),  # too large together
        ([600, 300, 200], [200, 300]),
        ([64], []),
        ([], []),
    ],
)
def test_what_is_merged_at_rest(sizes: list[int], merged: list[int]) -> None:
    """As many of the smallest as fit, none much larger than the others together."""
    segments = [segment(number, size * MIB) for number, size in enumerate(sizes, 1)]

    assert [file.bytes // MIB for file in mergeable_at_rest(segments, SETTINGS)] == merged


def test_only_a_shard_at_rest_is_merged_further() -> None:
    """While rows come in each segment gets its index; then nothing, for a moment; then one segment is made of them."""
    files = [segment(1, 64 * MIB), segment(2, 38 * MIB)]

    def chosen(settled: bool | None, *more: File) -> list[tuple[type, tuple[int, ...]]]:
        tasks = choose(INDEXED, [*files, *more], kind_named, SETTINGS, settled=settled)
        return [(type(task), task.inputs) for task in tasks]

    assert chosen(True, a_file(99, kind=FileKind.ROWS)) == [(BuildIndex, (1,)), (BuildIndex, (2,))]
    assert chosen(False, a_file(99, kind=FileKind.ROWS)) == [(BuildIndex, (1,)), (BuildIndex, (2,))]
    assert chosen(False) == []
    assert chosen(True) == [(Merge, (2, 1))]


def test_a_small_segment_is_indexed_at_rest() -> None:
    """While rows come in only those of more numbers than readers scan quickly are; then all."""
    settings = BuilderSettings(segment_bytes=1024 * MIB, rest_values=100 * 4)
    files = [segment(1, 64 * MIB), msgspec.structs.replace(segment(2, 900 * MIB), rows=101)]
    files.append(a_file(99, kind=FileKind.ROWS))

    def indexed(settled: bool | None) -> list[tuple[int, ...]]:
        return [task.inputs for task in choose(INDEXED, files, kind_named, settings, settled=settled)]

    assert indexed(False) == [(2,)]
    assert indexed(True) == [(1,), (2,)]


async def test_a_collection_comes_to_rest(shop: Shop) -> None:
    """Two segments become one with its index a moment after the last commit, and no answer changes."""
    await shop.define(indexes=(INDEX,))
    for number in range(2):
        await shop.write({number * 10 + i: 1000 + number * 10 + i for i in range(10)})
        await shop.seal()
    builder = shop.builder()

    while await builder.step():
        assert len(await shop.live(FileKind.SEGMENT)) == 2
    shop.clock.advance(SETTLED_S)
    await builder.step()

    (merged,) = await shop.live(FileKind.SEGMENT)
    assert merged.rows == 20
    assert merged.part("index", INDEX.field_id, INDEX.id)
    await shop.check()
    await builder.stop()
