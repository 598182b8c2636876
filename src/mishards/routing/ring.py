"""Consistent hashing with virtual nodes (Karger et al. 1997), as Mishards placed segments in 2020.

Every node owns points on a circle of hashes, in proportion to its weight; an item goes to the first nodes met clockwise
from its own hash. Familiar and stable, with the widest spread of loads of the routers here (P16).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mishards.model import Member, NodeId
from mishards.ports import Item
from mishards.routing.hashing import Hashes, hash_keys

POINTS = 200  # of a node of weight 1; loads then spread by about 15 %


class Ring:
    """A router. `points`: virtual nodes of a node of weight 1; every node has at least one."""

    def __init__(self, points: int = POINTS) -> None:
        self._points = points

    def place(self, members: Sequence[Member], items: Sequence[Item], replicas: int) -> dict[str, tuple[NodeId, ...]]:
        """The first `replicas` distinct nodes clockwise from each item; see ports.Router."""
        nodes = sorted(members, key=lambda member: member.id)
        copies = min(replicas, len(nodes))
        if not items or copies < 1:
            return {item.key: () for item in items}
        points, owners = self._circle(nodes)
        starts = np.searchsorted(points, hash_keys(item.key for item in items)).tolist()
        placed = {}
        for item, start in zip(items, starts, strict=True):
            chosen = _clockwise(owners, start, copies)
            placed[item.key] = tuple(nodes[n].id for n in chosen)
        return placed

    def _circle(self, nodes: Sequence[Member]) -> tuple[Hashes, list[int]]:
        """The points in ascending order and the position of the node that owns each."""
        counts = [max(1, round(self._points * node.weight)) for node in nodes]
        hashes = hash_keys(f"{node.id}#{i}" for node, count in zip(nodes, counts, strict=True) for i in range(count))
        owners: NDArray[np.intp] = np.repeat(np.arange(len(nodes)), counts)
        order = np.lexsort((owners, hashes))
        return hashes[order], owners[order].tolist()


ring = Ring()


def _clockwise(owners: Sequence[int], start: int, count: int) -> list[int]:
    found: list[int] = []
    for step in range(len(owners)):
        owner = owners[(start + step) % len(owners)]
        if owner not in found:
            found.append(owner)
            if len(found) == count:
                break
    return found
