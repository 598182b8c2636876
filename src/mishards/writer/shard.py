"""The unit of write ownership (P2)."""

from __future__ import annotations

from typing import NamedTuple

from mishards.model import CollectionId

SHARD_LEASES = "shard/"  # how the names of their leases begin


class Shard(NamedTuple):
    collection_id: CollectionId
    number: int

    @property
    def lease_name(self) -> str:
        return f"{SHARD_LEASES}{self.collection_id}/{self.number}"
