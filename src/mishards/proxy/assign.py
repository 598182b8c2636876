"""Which reader answers which file of a plan (P16, P17). Pure.

Each file goes to exactly one node (I13): a placed one that is ready, else any that is ready, else a placed one, which
loads it. Among equals the least loaded; files of one shard's tail stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mishards.errors import Kind, MishardsError
from mishards.model import File, FileKind, NodeId
from mishards.wire.placement import file_key


def assign(
    files: Sequence[File],
    placed: Mapping[str, Sequence[NodeId]],
    usable: Sequence[NodeId],
    ready: Callable[[NodeId, File], bool],
    load: Callable[[NodeId], float],
) -> dict[NodeId, list[File]]:
    """Files by node. `usable`: healthy readers not excluded by an earlier attempt. UNAVAILABLE when there are none."""
    if not files:
        return {}
    if not usable:
        raise MishardsError(Kind.UNAVAILABLE, "no reader is available: 0 of the cluster's readers can be reached")
    parts: dict[NodeId, list[File]] = {}
    rows_of: dict[NodeId, int] = dict.fromkeys(usable, 0)
    tails: dict[str, NodeId] = {}
    for file in sorted(files, key=lambda file: -file.rows):
        key = file_key(file)
        node = tails.get(key)
        if node is None:
            candidates = _candidates(file, placed.get(key, ()), usable, ready)
            order = {candidate: number for number, candidate in enumerate(candidates)}
            node = min(candidates, key=lambda n: (load(n), rows_of[n], order[n]))
        if file.kind is FileKind.ROWS:
            tails[key] = node
        parts.setdefault(node, []).append(file)
        rows_of[node] += file.rows
    return parts


def _candidates(
    file: File, placed: Sequence[NodeId], usable: Sequence[NodeId], ready: Callable[[NodeId, File], bool]
) -> Sequence[NodeId]:
    here = [node for node in placed if node in usable]
    if file.kind is FileKind.ROWS:
        return here[:1] or usable  # fresh rows load in a moment; the first owner has them
    return [n for n in here if ready(n, file)] or [n for n in usable if ready(n, file)] or here or usable
