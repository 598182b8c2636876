"""Which readers should hold which files: the one computation that readers, proxies and the topology table share (P16).

A pure function of the members and a collection's live segments, through the router plug-in, cached per collection until
either changes. Segments are placed by `segment_id`, so that attaching an index moves nothing; a shard's fresh rows by
the key of its tail (P9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mishards.model import Collection, CollectionId, File, FileKind, Member, NodeId
from mishards.ports import Item, Router

TAIL_COST = 64 << 20  # bytes: what a tail counts for beside segments; about the size at which it is sealed

KEPT_MAX = 10_000  # collections whose placement is remembered


def tail_key(collection_id: int, shard: int) -> str:
    return f"tail:{collection_id}/{shard}"


def segment_key(file: File) -> str:
    return f"segment:{file.segment_id}"


def file_key(file: File) -> str:
    """The placement key of a data file."""
    return segment_key(file) if file.kind is FileKind.SEGMENT else tail_key(file.collection_id, file.shard)


class Placement:
    """Node ids per placement key, first choice first."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._cache: dict[CollectionId, tuple[object, dict[str, tuple[NodeId, ...]]]] = {}

    def of(
        self,
        collection: Collection,
        segments: Callable[[], Iterable[File]],
        members: Sequence[Member],
        fingerprint: object,
    ) -> dict[str, tuple[NodeId, ...]]:
        """The placement of a loaded collection. `fingerprint` names the state of segments and members; `segments` is
        called only when it is new."""
        known = self._cache.get(collection.id)
        whole = (fingerprint, collection.replicas, collection.shards)
        if known is not None and known[0] == whole:
            return known[1]
        items = {segment_key(file): Item(segment_key(file), max(1, file.bytes)) for file in segments()}
        for shard in range(collection.shards):
            key = tail_key(collection.id, shard)
            items[key] = Item(key, TAIL_COST)
        if len(self._cache) >= KEPT_MAX:
            self._cache.clear()
        placed = self._router.place(members, list(items.values()), collection.replicas)
        self._cache[collection.id] = (whole, placed)
        return placed

    def forget(self, collection_id: CollectionId) -> None:
        self._cache.pop(collection_id, None)
