"""Which reader answers which file of a plan (P16, P17). Pure.

Each file goes to exactly one node (I13): a placed one that is ready, else any that is ready, else a placed one, which
loads it. Among equals the least loaded; files of one shard's tail stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

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
    """Files of one collection by node. `usable`: healthy readers not excluded by an earlier attempt. UNAVAILABLE when
    there are none."""
    if not files:
        return {}
    if not usable:
        raise MishardsError(Kind.UNAVAILABLE, "no reader is available: 0 of the cluster's readers can be reached")
    if len(usable) == 1:
        return {usable[0]: list(files)}
    parts: dict[NodeId, list[File]] = {}
    rows_of: dict[NodeId, int] = dict.fromkeys(usable, 0)
    for rows, together in sorted(_groups(files), key=itemgetter(0), reverse=True):
        candidates = _candidates(together[0], placed.get(file_key(together[0]), ()), usable, ready)
        node = candidates[0]
        if len(candidates) > 1:
            order = {candidate: number for number, candidate in enumerate(candidates)}
            node = min(candidates, key=lambda n: (load(n), rows_of[n], order[n]))
        parts.setdefault(node, []).extend(together)
        rows_of[node] += rows
    return parts


def _groups(files: Sequence[File]) -> list[tuple[int, list[File]]]:
    """What goes to one node each, with its rows: every segment by itself, the fresh files of each shard."""
    groups = [(file.rows, [file]) for file in files if file.kind is FileKind.SEGMENT]
    tails: dict[int, list[File]] = {}
    for file in files:
        if file.kind is FileKind.ROWS:
            tails.setdefault(file.shard, []).append(file)
    return groups + [(sum(file.rows for file in tail), tail) for tail in tails.values()]


def _candidates(
    file: File, placed: Sequence[NodeId], usable: Sequence[NodeId], ready: Callable[[NodeId, File], bool]
) -> Sequence[NodeId]:
    here = [node for node in placed if node in usable]
    if file.kind is FileKind.ROWS:
        return here[:1] or usable  # fresh rows load in a moment; the first owner has them
    return [n for n in here if ready(n, file)] or [n for n in usable if ready(n, file)] or here or usable
