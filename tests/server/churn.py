"""A cluster's collection under random writes, compared with an oracle that gets the same ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import rows as r

from mishards.builder.claims import Claims
from mishards.builder.collecting import Collector
from mishards.builder.sweeping import Sweeper
from mishards.clock import SystemClock
from mishards.model import CollectionId, Consistency, NodeId, Version
from mishards.ports import MetadataStore
from mishards.proxy.requests import ProxyService, QueryRequest, SearchRequest
from mishards.storage.file import open_storage
from mishards.testing.cluster import Cluster
from oracle import Oracle

KEYS = 40


async def collect(made: Cluster, folder: Path) -> None:
    """Delete everything that no live layout and no pin needs, whoever may still use it."""
    store, clock = made.nodes[0]._store, SystemClock()
    assert store is not None
    kept: MetadataStore = store  # type: ignore[assignment]
    storage = open_storage((folder / "storage").as_uri())
    claims = Claims(kept, NodeId("greedy"), clock, ttl_s=10.0)
    sweeper = Sweeper(kept, storage, made.nodes[0]._mirror, clock, quarantine_s=3600.0)
    collector = Collector(kept, storage, claims, _nobody_needs, sweeper, grace_s=0.0, quarantine_s=0.0)
    async with asyncio.timeout(20.0):
        while await kept.removed_files(0.0, 1):  # the cluster's own collector may be at it
            await collector.collect()
            await asyncio.sleep(0)
        await collector.collect()


async def _nobody_needs() -> dict[CollectionId, Version]:
    return {}


class Churn:
    """Random writes, the same ones to an oracle."""

    def __init__(self, proxy: ProxyService, seed: int) -> None:
        self.proxy = proxy
        self.random = np.random.default_rng(seed)
        self.oracle = Oracle("L2")
        self.step = 0

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            keys = self.random.choice(KEYS, 10, replace=False)
            written = [r.row(int(key), self.random, self.step) for key in keys]
            await r.write(self.proxy, written)
            self.oracle.upsert(written)
            gone = self.random.choice(KEYS, 3, replace=False).tolist()
            await r.delete(self.proxy, f"id in {gone}")
            self.oracle.delete(gone)
            if self.step % 3 == 0:
                await self.proxy.flush("default", [r.NAME])

    async def compare(self, name: str, oracle: Oracle) -> None:
        """The collection or snapshot of that name has exactly the rows of the oracle."""
        for limit in (3, KEYS):
            query = self.random.integers(0, 4, r.DIM).astype(float).tolist()
            request = SearchRequest(
                collection=name,
                queries=np.array([query], np.float32),
                limit=limit,
                consistency=Consistency.STRONG,
                timeout_s=20.0,
            )
            result = await self.proxy.search(request)
            assert list(zip(list(result.keys), result.scores.tolist(), strict=True)) == oracle.search(query, limit)
        asked = QueryRequest(
            collection=name, output=("id", "number"), limit=1000, consistency=Consistency.STRONG, timeout_s=20.0
        )
        rows = (await self.proxy.query(asked)).rows
        assert rows is not None
        found = zip(rows.column("100").to_pylist(), rows.column("101").to_pylist(), strict=True)
        assert dict(found) == {row["id"]: row["number"] for row in oracle.query()}
