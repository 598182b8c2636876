"""What the builder finds worth doing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.builder.policy import (
    MATERIALISE_INPUTS_MAX,
    TOMBSTONE_FILES_MAX,
    BuildIndex,
    DropPartition,
    DropTombstones,
    Materialise,
    Merge,
    Rewrite,
    applied_by_all,
    choose,
    row_bytes,
    tier,
)
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
    Index,
    IndexId,
    Part,
    Partition,
    PartitionId,
    Schema,
    Version,
)
from mishards.ports import Matrix, VectorIndex

SETTINGS = BuilderSettings(segment_bytes=1024 * MIB, merge_files=4, tombstones_max=1000)
VECTOR = FieldId(101)
HNSW = Index(id=IndexId(7), name="by_meaning", field_id=VECTOR, type="HNSW", metric="L2")
COLLECTION = Collection(
    id=CollectionId(1),
    name="pictures",
    schema=Schema(
        fields=(
            Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
            Field(id=VECTOR, name="meaning", type=DataType.FLOAT_VECTOR, dim=4),
        )
    ),
    created_ts=0,
    updated_ts=0,
    partitions=tuple(Partition(PartitionId(id), f"p{id}", 0) for id in (1, 2, 3)),
)
INDEXED = msgspec.structs.replace(COLLECTION, indexes=(HNSW,))


class FromHundredRows:
    """An index kind that is worthwhile from a hundred rows on."""

    name = "HNSW"
    metrics = frozenset({"L2"})

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        return dict(params)

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        return dict(params)

    def worthwhile(self, rows: int, dim: int) -> bool:
        return rows >= 100

    def build(self, vectors: Matrix, metric: str, params: Mapping[str, Any], threads: int, target: Path) -> None:
        raise AssertionError("the policy builds nothing")

    def load(self, path: Path, metric: str) -> VectorIndex:
        raise AssertionError("the policy loads nothing")


def kind_named(name: str) -> FromHundredRows:
    assert name == "HNSW"
    return FromHundredRows()


def segment(
    id: int,
    mib: int = 1,
    rows: int = 1000,
    dead: int = 0,
    horizon: int = 0,
    shard: int = 0,
    partition: int = 1,
    indexed: int = 0,
    scalars_mib: int = 0,
) -> File:
    parts = [
        Part(kind="vectors", path=f"{id}.vectors", bytes=mib * MIB, field_id=VECTOR),
        Part(kind="scalars", path=f"{id}.scalars", bytes=scalars_mib * MIB),
    ]
    if indexed:
        parts.append(Part(kind="index", path=f"{id}.index", bytes=1, field_id=VECTOR, index_id=IndexId(indexed)))
    return File(
        id=FileId(id),
        collection_id=COLLECTION.id,
        shard=shard,
        kind=FileKind.SEGMENT,
        rows=rows,
        bytes=mib * MIB,
        dead=dead,
        added=Version(max(horizon, 1)),
        horizon=Version(horizon),
        partition_id=PartitionId(partition),
        segment_id=FileId(id),
        parts=tuple(parts),
    )


def fresh(id: int, kind: FileKind, added: int, rows: int = 1, shard: int = 0) -> File:
    return File(
        id=FileId(id),
        collection_id=COLLECTION.id,
        shard=shard,
        kind=kind,
        rows=rows,
        bytes=1,
        added=Version(added),
        partition_id=PartitionId(1 if kind is FileKind.ROWS else 0),
    )


def tombstones(id: int, added: int, rows: int = 1, shard: int = 0) -> File:
    return fresh(id, FileKind.TOMBSTONES, added, rows, shard)


MERGES: list[tuple[str, list[File], list[tuple[int, ...]]]] = [
    ("fewer segments than merge_files stay", [segment(i) for i in (1, 2, 3)], []),
    ("merge_files of one tier are merged", [segment(i) for i in (1, 2, 3, 4)], [(1, 2, 3, 4)]),
    ("all of a tier that fit are merged", [segment(i) for i in range(1, 7)], [(1, 2, 3, 4, 5, 6)]),
    ("tiers are not mixed", [segment(1), segment(2), segment(3), segment(4, mib=200)], []),
    ("segments of the largest tier stay", [segment(i, mib=300) for i in range(1, 6)], []),
    ("only as many as fit the target", [segment(i, mib=200) for i in range(1, 7)], [(1, 2, 3, 4, 5)]),
    ("partitions are not mixed", [segment(1), segment(2), segment(3, partition=2), segment(4, partition=2)], []),
    ("shards are not mixed", [segment(1), segment(2), segment(3, shard=1), segment(4, shard=1)], []),
    ("scalars take room", [segment(i, scalars_mib=500) for i in (1, 2, 3, 4)], []),
    ("dead rows take no room", [segment(i, mib=1000, dead=750) for i in (1, 2, 3, 4)], [(1, 2, 3, 4)]),
    (
        "too many small segments of different tiers: the smallest are merged",
        [segment(i, mib=m) for i, m in enumerate([1, 1, 1, 5, 5, 5, 20, 20, 20], 1)],
        [(1, 2, 3, 4)],
    ),
]


@pytest.mark.parametrize(("files", "inputs"), [case[1:] for case in MERGES], ids=[case[0] for case in MERGES])
def test_merges(files: list[File], inputs: list[tuple[int, ...]]) -> None:
    """Segments of one partition, shard and size tier are merged as soon as there are enough."""
    tasks = choose(COLLECTION, files, kind_named, SETTINGS)

    assert [task.inputs for task in tasks if isinstance(task, Merge)] == inputs


def test_missing_index() -> None:
    """A segment is indexed if it is large enough and lacks the part of the current definition."""
    files = [segment(1), segment(2, indexed=7), segment(3, indexed=6), segment(4, rows=99, partition=2)]

    tasks = choose(INDEXED, files, kind_named, SETTINGS)

    assert [(type(task), task.inputs) for task in tasks] == [(BuildIndex, (1,)), (BuildIndex, (3,))]
    assert choose(COLLECTION, files, kind_named, SETTINGS) == []


def test_merge_before_index() -> None:
    """A segment that is to be merged is not indexed first."""
    tasks = choose(INDEXED, [segment(i) for i in (1, 2, 3, 4)], kind_named, SETTINGS)

    assert [type(task) for task in tasks] == [Merge]


def test_rewrite() -> None:
    """A segment is rewritten when more than dead_share of its rows are dead."""
    tasks = choose(COLLECTION, [segment(1, dead=200), segment(2, dead=201)], kind_named, SETTINGS)

    assert [(type(task), task.inputs) for task in tasks] == [(Rewrite, (2,))]


def test_many_tombstone_rows() -> None:
    """Segments are brought up to date once tombstones_max rows of tombstones are newer than one of them."""
    old, new = segment(1, horizon=5), segment(2, horizon=9)

    below = choose(COLLECTION, [old, new, tombstones(3, 4, 9999), tombstones(4, 9, 1000)], kind_named, SETTINGS)
    above = choose(COLLECTION, [old, new, tombstones(4, 9, 1000), tombstones(5, 10, 1)], kind_named, SETTINGS)

    assert [task.inputs for task in below if isinstance(task, Materialise)] == []
    assert [task.inputs for task in above if isinstance(task, Materialise)] == [(1, 2)]


def test_many_tombstone_files() -> None:
    """Segments are brought up to date once too many files of tombstones are newer than one of them."""
    many = [tombstones(100 + i, 10 + i) for i in range(TOMBSTONE_FILES_MAX + 1)]

    assert choose(COLLECTION, [segment(1), *many[1:]], kind_named, SETTINGS) == []
    assert [type(task) for task in choose(COLLECTION, [segment(1), *many], kind_named, SETTINGS)] == [Materialise]


def test_materialisation_is_bounded() -> None:
    """One materialisation takes a bounded number of segments, those furthest behind."""
    segments = [segment(i, mib=900, horizon=1000 - i) for i in range(1, MATERIALISE_INPUTS_MAX + 11)]

    (task,) = choose(COLLECTION, [*segments, tombstones(999, 2000, rows=5000)], kind_named, SETTINGS)

    assert sorted(task.inputs) == list(range(11, MATERIALISE_INPUTS_MAX + 11))


DROPS: list[tuple[str, list[File], list[tuple[int, ...]]]] = [
    ("no data file needs it", [tombstones(9, 3)], [(9,)]),
    ("a segment has not applied it", [segment(1, horizon=2), tombstones(9, 3)], []),
    ("every segment has applied it", [segment(1, horizon=3), segment(2, horizon=4), tombstones(9, 3)], [(9,)]),
    ("older fresh rows need it", [segment(1, horizon=9), fresh(2, FileKind.ROWS, 2), tombstones(9, 3)], []),
    ("younger fresh rows do not", [segment(1, horizon=9), fresh(2, FileKind.ROWS, 4), tombstones(9, 3)], [(9,)]),
    ("another shard does not", [segment(1, horizon=2, shard=1), tombstones(9, 3)], [(9,)]),
    ("some are applied, some not", [segment(1, horizon=4), tombstones(8, 4), tombstones(9, 5)], [(8,)]),
]


@pytest.mark.parametrize(("files", "inputs"), [case[1:] for case in DROPS], ids=[case[0] for case in DROPS])
def test_drops(files: list[File], inputs: list[tuple[int, ...]]) -> None:
    """Tombstones go when every data file of their shard has applied them (P6)."""
    tasks = choose(COLLECTION, files, kind_named, SETTINGS)

    assert [task.inputs for task in tasks if isinstance(task, DropTombstones)] == inputs


def test_dropped_partition() -> None:
    """The data files of a partition that is not defined any more are dropped, and nothing else is done with them."""
    files = [segment(i, partition=4) for i in range(1, 6)] + [segment(6, partition=3)]

    tasks = choose(INDEXED, files, kind_named, SETTINGS)

    assert [(type(task), task.inputs) for task in tasks] == [(BuildIndex, (6,)), (DropPartition, (1, 2, 3, 4, 5))]


def test_busy_and_resting() -> None:
    """Files under work and tasks that rest after a failure are left alone; their other files are free."""
    files = [segment(i) for i in range(1, 6)]

    (first,) = choose(COLLECTION, files, kind_named, SETTINGS)

    assert choose(COLLECTION, files, kind_named, SETTINGS, busy={FileId(1), FileId(2)}) == []
    assert choose(COLLECTION, files, kind_named, SETTINGS, resting={first.name}) == []
    resting = choose(INDEXED, files, kind_named, SETTINGS, resting={first.name})
    assert [type(task) for task in resting] == [BuildIndex] * 5


def test_urgency() -> None:
    """Merges come before indexes, these before rewrites, and tombstones last, whatever the shard."""
    shard_0 = [segment(1, indexed=7, dead=500), segment(2, indexed=7, horizon=3), tombstones(3, 0)]
    shard_1 = [segment(10 + i, shard=1) for i in range(4)] + [segment(20, shard=1, partition=3)]

    tasks = choose(INDEXED, shard_0 + shard_1, kind_named, SETTINGS)

    assert [type(task) for task in tasks] == [Merge, BuildIndex, Rewrite, DropTombstones]
    assert [task.name for task in tasks] == [
        "task/1/1/merge/1.5",
        "task/1/1/index/20",
        "task/1/0/rewrite/1",
        "task/1/0/drop/all",
    ]


@st.composite
def listings(draw: st.DrawFn) -> list[File]:
    """Any list of live files of one collection."""
    files: list[File] = []
    for id in range(1, draw(st.integers(1, 40)) + 1):
        shard, version = draw(st.integers(0, 1)), draw(st.integers(1, 9))
        kind = draw(st.sampled_from([FileKind.SEGMENT] * 5 + [FileKind.ROWS, FileKind.TOMBSTONES]))
        if kind is FileKind.SEGMENT:
            rows = draw(st.integers(0, 300))
            files.append(
                segment(
                    id,
                    mib=draw(st.sampled_from([0, 1, 3, 10, 60, 200, 900, 2000])),
                    rows=rows,
                    dead=draw(st.integers(0, rows)),
                    horizon=version,
                    shard=shard,
                    partition=draw(st.integers(1, 4)),
                    indexed=draw(st.sampled_from([0, 6, 7])),
                )
            )
        else:
            files.append(fresh(id, kind, version, rows=draw(st.integers(1, 800)), shard=shard))
    return files


@given(files=listings(), busy=st.sets(st.integers(1, 40)))
def test_any_listing(files: list[File], busy: set[FileId]) -> None:
    """Whatever is listed: no file is chosen twice or while busy, no merge exceeds the target or mixes partitions, and
    no tombstone is dropped that a data file of its shard has not applied (P6)."""
    tasks = choose(INDEXED, files, kind_named, SETTINGS, busy)

    by_id = {file.id: file for file in files}
    chosen = [file_id for task in tasks for file_id in task.inputs]
    assert len(chosen) == len(set(chosen))
    assert busy.isdisjoint(chosen)
    for task in tasks:
        inputs = [by_id[file_id] for file_id in task.inputs]
        assert {file.shard for file in inputs} == {task.shard}
        if isinstance(task, Merge):
            assert sum(map(row_bytes, inputs)) <= SETTINGS.segment_bytes
            assert len(inputs) >= SETTINGS.merge_files
            assert {file.partition_id for file in inputs} == {task.partition_id}
        if isinstance(task, DropTombstones):
            assert {file.kind for file in inputs} == {FileKind.TOMBSTONES}
            data = [file for file in files if file.shard == task.shard and file.kind is not FileKind.TOMBSTONES]
            assert all(
                tombstone.added <= (file.added if file.kind is FileKind.ROWS else file.horizon)
                for tombstone in inputs
                for file in data
            )
        else:
            assert FileKind.TOMBSTONES not in {file.kind for file in inputs}


@given(st.integers(0, 1 << 40))
def test_tier(size: int) -> None:
    """merge_files segments of one tier above the largest always fit into one of the target size."""
    level = tier(size, SETTINGS)

    assert level == 0 or size * SETTINGS.merge_files <= SETTINGS.segment_bytes


def test_no_data() -> None:
    """Without data files every tombstone is applied."""
    nothing: Iterable[File] = ()

    assert applied_by_all(nothing) == float("inf")
