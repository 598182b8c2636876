"""The truth: what every version of every collection holds, by replaying the chain of commits as they happen.

A commit is looked at when it happens, before anybody can see it. Write commits change the fold; of layout commits it is
checked, from the contents of the files that they list, that they do not (I12).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from msgspec.structs import replace

from mishards.model import VERSION_COLUMN, CollectionId, Commit, File, FileId, FileKind
from mishards.ports import CommitRequest
from mishards.segment.footer import verify
from mishards.segment.fresh import Tombstones, decode_rows, decode_tombstones
from mishards.segment.read import open_scalars, read_deletes

PK, TAG, GROUP = "100", "101", "102"  # columns of the simulation's schema


class ViolationError(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(message)
        self.invariant = invariant


class Row(NamedTuple):
    tag: int  # names the row for ever: each row that is written has its own
    group: int
    partition: int


class Placed(NamedTuple):
    """A row where it lies."""

    key: int
    version: int
    row: Row


class Kill(NamedTuple):
    """Rows of the key with a version below `limit`, in the partition (0: in any), are dead (P4)."""

    key: int
    limit: int
    partition: int

    def reaches(self, version: int, row: Row) -> bool:
        return version < self.limit and self.partition in (0, row.partition)


Fold = dict[int, Row]  # by primary key


class Lost(NamedTuple):
    """A write commit that the metadata service has forgotten."""

    commit: Commit
    tags: frozenset[int]  # of its rows
    files: frozenset[FileId]

    def is_back_in(self, history: History) -> bool:
        return self.files <= history.files.keys() | history.removed.keys()


class History:
    """One collection."""

    def __init__(self, id: CollectionId) -> None:
        self.id = id
        self.dropped = False
        self.folds: list[Fold] = [{}]  # by version
        self.commits: list[Commit] = []  # of version n at n - 1
        self.times_s: list[float] = [0.0]  # when each version came to be
        self.files: dict[FileId, File] = {}  # live at the newest version
        self.removed: dict[FileId, tuple[File, int]] = {}  # the others, and the versions that removed them
        self.listed: dict[str, int] = {}  # paths of all files ever listed, and the version that first did
        self.written: dict[int, list[int]] = {}  # the versions whose commits carry a row of that tag
        self.partitions: dict[int, int] = {}  # that rows were written to, by tag
        self.touched: list[set[int]] = [set()]  # by version: the keys of the rows and tombstones of its commit
        self.pins: dict[str, int] = {}  # the versions of snapshots that were acknowledged, by name
        self.layouts: dict[str, int] = {}  # how many layout commits of each kind
        self.lost: list[Lost] = []
        self.lost_folds: list[Fold] = []  # that they led to
        self.fell_back_s = float("-inf")  # when they were forgotten

    @property
    def version(self) -> int:
        return len(self.commits)

    def version_at(self, time_s: float) -> int:
        """The newest version at that time."""
        version = self.version
        while version and self.times_s[version] > time_s:
            version -= 1
        return version

    def paths_at(self, version: int) -> set[str]:
        """What a read of that version may need."""
        files = [file for file in self.files.values() if file.added <= version]
        files += [file for file, removed in self.removed.values() if file.added <= version < removed]
        return {part.path for file in files for part in file.parts if part.path}

    def version_of_ts(self, ts: int) -> int | None:
        return next((commit.version for commit in reversed(self.commits) if commit.ts == ts), None)

    def fall_back(self, version: int, now_s: float) -> None:
        """Later commits never were: the metadata service has forgotten them."""
        listed = self.files | {id: file for id, (file, _) in self.removed.items()}
        self.lost += [
            Lost(
                commit,
                frozenset(tag for tag, versions in self.written.items() if commit.version in versions),
                frozenset(id for id, file in listed.items() if file.added == commit.version),
            )
            for commit in self.commits[version:]
            if commit.kind == "write"
        ]
        self.lost_folds += self.folds[version + 1 :]
        self.fell_back_s = now_s
        for by_version in (self.folds, self.touched, self.times_s):
            del by_version[version + 1 :]
        del self.commits[version:]
        self.listed = {path: first for path, first in self.listed.items() if first <= version}
        self.written = {tag: [each for each in versions if each <= version] for tag, versions in self.written.items()}
        for file, removed in list(self.removed.values()):
            if removed > version:
                del self.removed[file.id]
                self.files[file.id] = file
        self.files = {id: file for id, file in self.files.items() if file.added <= version}
        self.removed = {id: each for id, each in self.removed.items() if each[0].added <= version}


class Oracle:
    """Follows all collections. `objects`: what lies in storage; `torn`: paths whose content is not complete."""

    def __init__(
        self,
        objects: dict[str, bytes],
        torn: set[str],
        scratch: Path,
        now_s: Callable[[], float],
        partitions: Callable[[CollectionId], Collection[int]],
    ) -> None:
        """`partitions`: those of a collection that are defined now."""
        self.histories: dict[CollectionId, History] = {}
        self._objects = objects
        self._torn = torn
        self._scratch = scratch
        self._now_s = now_s
        self._partitions = partitions
        self._contents: dict[FileId, list[Placed] | Tombstones] = {}

    def history_of(self, id: CollectionId) -> History:
        return self.histories.setdefault(id, History(id))

    def on_commit(self, request: CommitRequest, commit: Commit) -> None:
        history = self.history_of(request.collection_id)
        last = history.commits[-1] if history.commits else None
        if history.dropped:
            raise ViolationError("dropped", f"version {commit.version} of collection {history.id}, which is dropped")
        if commit.version != history.version + 1 or commit.previous != (last.uuid if last else ""):
            raise ViolationError("I2", f"commit {commit.version} after {last}: {commit}")
        if last is not None and commit.ts <= last.ts:
            raise ViolationError("P3", f"timestamp {commit.ts} of version {commit.version} after {last.ts}")
        for file_id in request.removed:
            file = history.files.pop(file_id, None)
            if file is None:
                raise ViolationError("I12", f"file {file_id} is an input of version {commit.version}, but is not live")
            history.removed[file_id] = (file, commit.version)
        for file in request.added:
            self._add(history, replace(file, added=commit.version), request)
        before = history.folds[-1]
        after = self._applied(before, request, commit) if request.kind == "write" else before
        history.commits.append(commit)
        history.times_s.append(self._now_s())
        history.folds.append(after)
        history.touched.append(self._keys(request) if request.kind == "write" else set())
        if request.kind != "write":
            self._check_layout(history, request)

    # ------------------------------------------------------------------------------------------------------- contents

    def _add(self, history: History, file: File, request: CommitRequest) -> None:
        for part in file.parts:
            if not part.path:
                continue
            if part.path not in self._objects or part.path in self._torn:
                raise ViolationError("I3", f"{part.path} of version {file.added} is not complete in storage")
            if file.kind is not FileKind.SEGMENT and part.path in history.listed:
                raise ViolationError("P1", f"{part.path} is listed twice")
            history.listed.setdefault(part.path, file.added)
        self._contents[file.id] = self._read(file, request)
        history.files[file.id] = file

    def _read(self, file: File, request: CommitRequest) -> list[Placed] | Tombstones:
        if file.kind is FileKind.SEGMENT:
            return self._read_segment(file)
        data = request.payloads[file.id] if file.inline else self._objects[file.parts[0].path]
        if file.kind is FileKind.TOMBSTONES:
            return decode_tombstones(data)
        return _placed(pa.Table.from_batches([decode_rows(data)]), file, [file.added] * file.rows)

    def _read_segment(self, file: File) -> list[Placed]:
        scalars, deletes = file.part("scalars"), file.part("deletes")
        if scalars is None:
            raise ViolationError("P5", f"segment {file.id} has no scalars")
        table = open_scalars(self._local(scalars.path))
        rows = _placed(table, file, table.column(VERSION_COLUMN).to_pylist())
        if len(rows) != file.rows:
            raise ViolationError("P5", f"segment {file.id} lists {file.rows} rows and has {len(rows)}")
        if deletes is None:
            return rows
        dead = read_deletes(self._local(deletes.path), file.rows)
        return [row for row, gone in zip(rows, dead.tolist(), strict=True) if not gone]

    def _local(self, path: str) -> Path:
        local = self._scratch / "checked"
        local.unlink(missing_ok=True)  # an earlier one may still be mapped
        local.write_bytes(self._objects[path])
        verify(local)
        return local

    # ---------------------------------------------------------------------------------------------------------- folds

    def _applied(self, before: Fold, request: CommitRequest, commit: Commit) -> Fold:
        """The fold after a write commit: first its tombstones, then its rows (P4)."""
        history = self.histories[request.collection_id]
        after = dict(before)
        for file in request.added:
            content = self._contents[file.id]
            if isinstance(content, Tombstones):
                for kill in _kills(content, commit.version):
                    row = after.get(kill.key)
                    if row is not None and kill.reaches(history.written[row.tag][-1], row):
                        del after[kill.key]
        for file in request.added:
            content = self._contents[file.id]
            if isinstance(content, list):
                for placed in content:
                    if placed.key in after:
                        raise ViolationError("I6", f"key {placed.key} has two rows at version {commit.version}")
                    after[placed.key] = placed.row
                    history.written.setdefault(placed.row.tag, []).append(commit.version)
                    history.partitions[placed.row.tag] = placed.row.partition
        return after

    def _keys(self, request: CommitRequest) -> set[int]:
        keys: set[int] = set()
        for file in request.added:
            content = self._contents[file.id]
            keys.update(content.keys.to_pylist() if isinstance(content, Tombstones) else (each.key for each in content))
        return keys

    def _check_layout(self, history: History, request: CommitRequest) -> None:
        kinds = "+".join(sorted({file.kind.name for file in request.added})) or "drop"
        history.layouts[kinds] = history.layouts.get(kinds, 0) + 1
        defined = self._partitions(history.id)  # of the others rows may be left, for a while
        found: Fold = {}
        kills: dict[tuple[int, int], list[Kill]] = {}  # by shard and key
        for file in history.files.values():
            content = self._contents[file.id]
            if isinstance(content, Tombstones):
                for kill in _kills(content, file.added):
                    kills.setdefault((file.shard, kill.key), []).append(kill)
        for file in history.files.values():
            content = self._contents[file.id]
            if isinstance(content, Tombstones):
                continue
            for key, version, row in content:
                if row.partition not in defined:
                    continue
                if any(kill.reaches(version, row) for kill in kills.get((file.shard, key), ())):
                    continue
                if key in found:
                    raise ViolationError("I12", f"key {key} is live twice after version {history.version}")
                found[key] = row
        expected = {key: row for key, row in history.folds[-1].items() if row.partition in defined}
        if found != expected:
            raise ViolationError(
                "I12", f"layout commit {history.version} changed the rows: {difference(found, expected)}"
            )

    def needed_paths(self) -> set[str]:
        """Of live files, and of those that snapshots hold."""
        needed: set[str] = set()
        for history in self.histories.values():
            if history.dropped:
                continue
            for version in {history.version, *history.pins.values()}:
                needed |= history.paths_at(version)
        return needed


def _placed(table: pa.Table, file: File, versions: list[int]) -> list[Placed]:
    columns = (table.column(name).to_pylist() for name in (PK, TAG, GROUP))
    return [
        Placed(key, version, Row(tag, group, file.partition_id))
        for key, tag, group, version in zip(*columns, versions, strict=True)
    ]


def _kills(stones: Tombstones, version: int) -> list[Kill]:
    """What the tombstones of that version kill."""
    columns = (stones.keys.to_pylist(), stones.below.tolist(), stones.partitions.tolist())
    return [
        Kill(key, min(below or version, version), partition) for key, below, partition in zip(*columns, strict=True)
    ]


def difference(found: Mapping[int, tuple[int, ...]], expected: Mapping[int, tuple[int, ...]]) -> str:
    """How what was found differs from what should be there, shortly."""
    missing = {key: tuple(row) for key, row in expected.items() if key not in found}
    extra = {key: tuple(row) for key, row in found.items() if key not in expected}
    other = {
        key: (tuple(row), tuple(expected[key]))
        for key, row in found.items()
        if key in expected and expected[key] != row
    }
    return f"missing {missing}, too many {extra}, other rows {other}"
