"""Which writer should own which shard (P2): the placement of readers' files (P16), applied to shards and writers.

Writers take and hand over shards until it is so; proxies ask there first. A collection's shards are placed by
themselves, each counting the same, so that they spread over the writers however many collections there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from mishards.model import CollectionId, Member, NodeId
from mishards.ports import Item, Router

KEPT_MAX = 10_000  # collections whose placement is remembered


class Ownership:
    """Owners by shard, remembered for each collection until its writers change."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._known: dict[CollectionId, tuple[object, tuple[NodeId, ...]]] = {}

    def owners(self, collection_id: CollectionId, shards: int, writers: Sequence[Member]) -> tuple[NodeId, ...]:
        """The writer of each shard; `writers` is not empty."""
        state = (shards, tuple((writer.id, writer.weight) for writer in writers))
        known = self._known.get(collection_id)
        if known is not None and known[0] == state:
            return known[1]
        items = [Item(f"shard:{collection_id}/{shard}", 1) for shard in range(shards)]
        placed = self._router.place(writers, items, 1)
        owners = tuple(placed[item.key][0] for item in items)
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        self._known[collection_id] = (state, owners)
        return owners
