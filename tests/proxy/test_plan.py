"""The plan: any layout gives the same rows, and each row once (P7, P11, I6, I12)."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from mishards.model import CollectionId, File, FileId, FileKind, PartitionId, Version
from mishards.proxy.plan import in_plan, make_plan, serving_layout

PARTITION = PartitionId(1)


class History:
    """A made-up chain of writes, flushes, merges and index attachments of one shard, with what each file holds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.files: dict[FileId, File] = {}
        self.holds: dict[FileId, frozenset[int]] = {}
        self.written: dict[int, int] = {}  # row -> version of its write
        self.version = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.version += 1
            self.random.choice([self.write, self.write, self.flush, self.merge, self.attach])()

    def write(self) -> None:
        rows = frozenset(range(len(self.written), len(self.written) + self.random.randint(1, 5)))
        self.written.update(dict.fromkeys(rows, self.version))
        self.add(FileKind.ROWS, rows)

    def flush(self) -> None:
        self.replace(self.live(FileKind.ROWS))

    def merge(self) -> None:
        segments = self.live(FileKind.SEGMENT)
        self.replace(self.random.sample(segments, min(len(segments), 2)))

    def attach(self) -> None:
        self.replace(self.live(FileKind.SEGMENT)[:1])

    def live(self, kind: FileKind) -> list[FileId]:
        return [i for i, file in self.files.items() if file.kind is kind and not file.removed]

    def replace(self, inputs: list[FileId]) -> None:
        if inputs:
            for i in inputs:
                self.files[i] = replace(self.files[i], removed=Version(self.version))
            self.add(FileKind.SEGMENT, frozenset().union(*(self.holds[i] for i in inputs)))

    def add(self, kind: FileKind, rows: frozenset[int]) -> None:
        i = FileId(len(self.files) + 1)
        self.files[i] = File(
            id=i,
            collection_id=CollectionId(7),
            shard=0,
            kind=kind,
            rows=len(rows),
            bytes=1,
            added=Version(self.version),
            partition_id=PARTITION,
            segment_id=i,
        )
        self.holds[i] = rows


@pytest.mark.parametrize("seed", range(200))
def test_every_layout_gives_exactly_the_rows_of_the_version(seed: int) -> None:
    """For any p <= v the files of (p, v) hold the rows written up to v, each exactly once."""
    history = History(seed)
    history.run(15)

    for version in range(1, history.version + 1):
        wanted = sorted(row for row, written in history.written.items() if written <= version)
        for layout in range(version + 1):
            files = [file for file in history.files.values() if in_plan(file, layout, version)]
            assert sorted(row for file in files for row in history.holds[file.id]) == wanted


@pytest.mark.parametrize("seed", range(100))
def test_the_serving_layout_uses_only_ready_segments_when_there_is_such_a_layout(seed: int) -> None:
    """The newest layout whose segments are all ready is taken."""
    history = History(seed)
    history.run(15)
    ready = {i for i in history.files if history.random.random() < 0.7}
    segments = [file for file in history.files.values() if file.kind is FileKind.SEGMENT]

    layout = serving_layout(segments, Version(history.version), Version(0), lambda file: file.id in ready)

    usable = [p for p in range(history.version + 1) if all(file.id in ready for file in segments if file.live_at(p))]
    assert layout == max(usable)


def test_without_a_usable_layout_the_newest_is_taken() -> None:
    """When older layouts are no longer known, the version itself is the layout and readers load what they lack."""
    history = History(1)
    history.write()
    history.version = 1
    history.flush()
    segments = [file for file in history.files.values() if file.kind is FileKind.SEGMENT]

    assert serving_layout(segments, Version(5), Version(5), lambda _: False) == 5


def test_partitions_that_are_not_asked_for_are_left_out() -> None:
    """Only files of the given partitions are planned."""
    history = History(3)
    history.run(10)

    assert make_plan(history.files, Version(10), Version(0), 1, {PartitionId(2)}, lambda _: True).files == ()
    assert make_plan(history.files, Version(10), Version(0), 1, {PARTITION}, lambda _: True).rows == len(
        history.written
    )
