"""No shard takes rows that were asked for after it was full (P15, I20).

What was asked for before it was full may still wait for its commit, and a writer counts every half second only, or has
just taken the shard over: what began within a second after any of that is let pass, and deletes always are. Of what it
did not commit itself, or the metadata service has forgotten, a writer knows what it was told since: that may take long.
"""

from __future__ import annotations

from typing import NamedTuple

from mishards.config import WriterSettings
from mishards.model import FileId, FileKind
from mishards.ports import CommitRequest
from mishards.testing.sim.node import Node
from mishards.testing.sim.oracle import History

LAG_S = 1.0  # twice as long as between two counts
COUNTED_S = 0.6  # after a writer has heard


class Full(NamedTuple):
    """A shard that has been full for a while, as its owner must know by `known_s`."""

    shard: int
    known_s: float
    what: str


class _Owner(NamedTuple):
    node: Node
    since_s: float


class Bounds:
    """Of the shards of one collection."""

    def __init__(self, history: History, settings: WriterSettings) -> None:
        self._history = history
        self._settings = settings
        self._full_s: dict[int, float] = {}  # since when, by shard
        self._owners: dict[int, _Owner] = {}
        self._committed_by: dict[FileId, Node] = {}

    def before(self, node: Node, request: CommitRequest, partitions: frozenset[int]) -> list[Full]:
        """The full ones among the shards that a commit of `node` brings rows to. `partitions` are defined."""
        found = []
        for shard in sorted({file.shard for file in request.added if file.kind is FileKind.ROWS}):
            owner = self._owners.get(shard)
            if shard in self._full_s and owner is not None and owner.node is node:
                since_s = max(self._full_s[shard], owner.since_s)
                heard_s = node.server.heard_s(since_s)
                fell_back = self._history.fell_back_s >= owner.since_s
                by_itself = "" if fell_back else self._full(shard, partitions, node)
                what = by_itself or self._full(shard, partitions)
                known_s = since_s + LAG_S if by_itself else max(since_s + LAG_S, heard_s + COUNTED_S)
                if what and node.process.ran_since(since_s):
                    found.append(Full(shard, known_s, what))
        return found

    def after(self, node: Node, request: CommitRequest, partitions: frozenset[int], now_s: float) -> None:
        """The commit has happened."""
        self._committed_by |= {file.id: node for file in request.added}
        removed = self._history.removed
        changed = [*request.added, *(removed[id][0] for id in request.removed if id in removed)]
        for shard in {file.shard for file in changed}:
            if self._full(shard, partitions):
                self._full_s.setdefault(shard, now_s)
            else:
                self._full_s.pop(shard, None)
            owner = self._owners.get(shard)
            if request.kind == "write" and (owner is None or owner.node is not node):
                self._owners[shard] = _Owner(node, now_s)

    def _full(self, shard: int, partitions: frozenset[int], by: Node | None = None) -> str:
        """What of the shard, or of what that node brought to it, has reached its bound; "": nothing."""
        files = [file for file in self._history.files.values() if file.shard == shard]
        if by is not None:
            files = [file for file in files if self._committed_by.get(file.id) is by]
        fresh = [file for file in files if file.kind is FileKind.ROWS and file.partition_id in partitions]
        held = {
            "fresh_bytes_max": sum(file.bytes for file in fresh),
            "fresh_files_max": len(fresh),
            "tombstones_max": sum(file.rows for file in files if file.kind is FileKind.TOMBSTONES),
            "segments_max": sum(file.kind is FileKind.SEGMENT for file in files),
        }
        return ", ".join(f"{value} of {name}" for name, value in held.items() if value >= getattr(self._settings, name))
