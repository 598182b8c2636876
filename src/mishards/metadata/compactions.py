"""Compactions that somebody asked for, kept where every builder sees them and no restart loses them: each as a lease
that nobody works under, which runs out by itself a day later.
"""

from __future__ import annotations

import msgspec

from mishards.model import CollectionId, NodeId, Version
from mishards.ports import Lease, MetadataStore

PREFIX = "compaction/"  # of the leases' names
KEPT_S = 86_400.0


class Compaction(msgspec.Struct, frozen=True):
    """Merge what was written up to `version` into few segments, and apply the deletes until then. `ts`: the hybrid
    timestamp of that version. `done`: the version at which there was nothing left to do; 0: there is."""

    id: int
    collection_id: CollectionId
    version: Version
    ts: int
    done: Version = Version(0)


async def record(store: MetadataStore, compaction: Compaction) -> None:
    """Ask for it, or tell that it is done. Idempotent."""
    nonce = f"{compaction.version}.{compaction.ts}.{compaction.done}"
    await store.acquire(f"{PREFIX}{compaction.id}", NodeId(str(compaction.collection_id)), nonce, KEPT_S)


async def find(store: MetadataStore, id: int) -> Compaction | None:
    """None: never asked for, or more than a day ago."""
    name = f"{PREFIX}{id}"
    return next((_compaction(lease) for lease in await store.leases(name) if lease.name == name), None)


async def wanted(store: MetadataStore) -> list[Compaction]:
    """Those that are not done, oldest first."""
    asked = [_compaction(lease) for lease in await store.leases(PREFIX)]
    return sorted((each for each in asked if not each.done), key=lambda each: each.id)


def _compaction(lease: Lease) -> Compaction:
    version, ts, done = lease.nonce.split(".")
    id = int(lease.name.removeprefix(PREFIX))
    return Compaction(id, CollectionId(int(lease.owner)), Version(int(version)), int(ts), Version(int(done)))
