"""No shard takes rows that were asked for after it was full (P15, I20).

What was asked for before it was full may still wait for its commit, and a writer counts every half second only, or has
just taken the shard over: what began within a second after any of that is let pass, and deletes always are.
"""

from __future__ import annotations

from typing import NamedTuple

from mishards.config import WriterSettings
from mishards.model import FileKind
from mishards.ports import CommitRequest
from mishards.testing.sim.node import Node
from mishards.testing.sim.oracle import History

LAG_S = 1.0  # twice as long as between two counts


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

    def before(self, node: Node, request: CommitRequest, partitions: frozenset[int]) -> list[Full]:
        """The full ones among the shards that a commit of `node` brings rows to. `partitions` are defined."""
        found = []
        for shard in sorted({file.shard for file in request.added if file.kind is FileKind.ROWS}):
            owner = self._owners.get(shard)
            if shard in self._full_s and owner is not None and owner.node is node:
                known_s = max(self._full_s[shard], owner.since_s) + LAG_S
                what = self._full(shard, partitions)
                if what and node.process.ran_since(known_s - LAG_S):
                    found.append(Full(shard, known_s, what))
        return found

    def after(self, node: Node, request: CommitRequest, partitions: frozenset[int], now_s: float) -> None:
        """The commit has happened."""
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

    def _full(self, shard: int, partitions: frozenset[int]) -> str:
        """What of the shard has reached its bound; "": nothing."""
        files = [file for file in self._history.files.values() if file.shard == shard]
        fresh = [file for file in files if file.kind is FileKind.ROWS and file.partition_id in partitions]
        held = {
            "fresh_bytes_max": sum(file.bytes for file in fresh),
            "fresh_files_max": len(fresh),
            "tombstones_max": sum(file.rows for file in files if file.kind is FileKind.TOMBSTONES),
            "segments_max": sum(file.kind is FileKind.SEGMENT for file in files),
        }
        return ", ".join(f"{value} of {name}" for name, value in held.items() if value >= getattr(self._settings, name))
