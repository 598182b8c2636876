"""Which reader answers which file of a plan (P16, P17). Pure.

Each file goes to exactly one node (I13): a placed one that is ready, else any that is ready, else a placed one, which
loads it. Among equals the least loaded; files of one shard's tail stay together.

Who may answer a file changes with readiness and health, now and then; which of them does, with the loads, at every
search. So the first is found once for many searches, the second anew where there is a choice (P18).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from mishards.errors import Kind, MishardsError
from mishards.model import File, FileId, FileKind, NodeId
from mishards.wire.placement import file_key

SPREADS_KEPT_MAX = 16  # of as many different loads: few readers soon have the same ones again


class Part(NamedTuple):
    """What one node is asked for."""

    node: NodeId
    files: tuple[File, ...]
    ids: tuple[int, ...]
    spare: NodeId | None  # another reader that needs to load nothing for it


class _Group(NamedTuple):
    """Files that go to one node together, and the nodes that they may go to, best first."""

    rows: int
    files: Sequence[File]
    candidates: Sequence[NodeId]


class Choices:
    """Where each file may go. They hold as long as the arguments do, `ready` included."""

    def __init__(
        self,
        files: Sequence[File],
        placed: Mapping[str, Sequence[NodeId]],
        usable: Sequence[NodeId],
        ready: Callable[[NodeId, File], bool],
    ) -> None:
        """Of files of one collection. `usable`: healthy readers not excluded by an earlier attempt; UNAVAILABLE when
        there are none."""
        if files and not usable:
            raise MishardsError(Kind.UNAVAILABLE, "no reader is available: 0 of the cluster's readers can be reached")
        self._usable = usable
        self._ready = ready
        self._having: dict[FileId, list[NodeId]] = {}
        self._groups = sorted(self._grouped(files, placed), key=attrgetter("rows"), reverse=True)
        rivals = (node for group in self._groups if len(group.candidates) > 1 for node in group.candidates)
        self._rivals = tuple(dict.fromkeys(rivals))  # whose loads matter
        self._spreads: dict[tuple[float, ...], list[Part]] = {}  # by the rivals' loads

    def parts(self, load: Callable[[NodeId], float]) -> list[Part]:
        """Every file in exactly one part, one part a node. Only by how much the loads differ matters."""
        loads = [load(node) for node in self._rivals]
        least = min(loads, default=0)
        key = tuple([each - least for each in loads])
        parts = self._spreads.get(key)
        if parts is None:
            if len(self._spreads) >= SPREADS_KEPT_MAX:
                self._spreads.clear()
            parts = self._spreads[key] = self._spread(dict(zip(self._rivals, loads, strict=True)))
        return parts

    def _spread(self, loads: Mapping[NodeId, float]) -> list[Part]:
        files_of: dict[NodeId, list[File]] = {}
        rows_of: dict[NodeId, int] = dict.fromkeys(self._usable, 0)
        for rows, files, candidates in self._groups:
            node = candidates[0]
            if len(candidates) > 1:  # of equals the first
                node = min(candidates, key=lambda n: (loads[n], rows_of[n]))
            files_of.setdefault(node, []).extend(files)
            rows_of[node] += rows
        return [
            Part(node, tuple(files), tuple([file.id for file in files]), self._spare(node, files))
            for node, files in files_of.items()
        ]

    def _grouped(self, files: Sequence[File], placed: Mapping[str, Sequence[NodeId]]) -> Iterator[_Group]:
        """Every segment by itself, the fresh files of each shard together."""
        tails: dict[int, list[File]] = {}
        for file in files:
            if file.kind is FileKind.SEGMENT:
                yield _Group(file.rows, (file,), self._candidates(file, placed))
            elif file.kind is FileKind.ROWS:
                tails.setdefault(file.shard, []).append(file)
        for tail in tails.values():
            yield _Group(sum(file.rows for file in tail), tail, self._candidates(tail[0], placed))

    def _candidates(self, file: File, placed: Mapping[str, Sequence[NodeId]]) -> Sequence[NodeId]:
        usable, ready = self._usable, self._ready
        here = [node for node in placed.get(file_key(file), ()) if node in usable]
        if file.kind is FileKind.ROWS:
            return here[:1] or usable  # fresh rows load in a moment; the first owner has them
        return [node for node in here if ready(node, file)] or self._ready_nodes(file) or here or usable

    def _ready_nodes(self, file: File) -> list[NodeId]:
        known = self._having.get(file.id)
        if known is None:
            known = self._having[file.id] = [node for node in self._usable if self._ready(node, file)]
        return known

    def _spare(self, node: NodeId, files: Sequence[File]) -> NodeId | None:
        """Another reader that has all segments ready; fresh rows load in a moment."""
        segments = [file for file in files if file.kind is FileKind.SEGMENT]
        others = self._ready_nodes(segments[0]) if segments else self._usable
        for other in others:
            if other != node and all(self._ready(other, file) for file in segments):
                return other
        return None
