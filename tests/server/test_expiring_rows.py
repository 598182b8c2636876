"""Rows that expire, through a whole cluster: `collection.ttl.seconds`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import rows as r

from mishards.proxy.requests import ProxyService
from mishards.schema.expiry import TTL_PROPERTY
from mishards.testing.cluster import cluster
from mishards.wire.definitions import AlterProperties


async def alter(proxy: ProxyService, **changes: object) -> None:
    await proxy.define(AlterProperties(database="default", collection=r.NAME, **changes))  # type: ignore[arg-type]


async def test_rows_vanish_when_their_time_is_over(tmp_path: Path) -> None:
    """Sealed or fresh, they leave searches, queries and counts together, without any commit; when the time to live goes
    so soon that they were not dropped yet, they are back."""
    random = np.random.default_rng(3)
    async with cluster(tmp_path, readers=2) as made:
        await r.create(made.proxy, shards=2)
        await r.write(made.proxy, [r.row(key, random) for key in range(30)])
        await made.proxy.flush("default", [r.NAME])
        await r.write(made.proxy, [r.row(key, random) for key in range(30, 40)])
        await alter(made.proxy, set={TTL_PROPERTY: "3600"})
        assert await r.count(made.proxy) == 40

        await alter(made.proxy, set={TTL_PROPERTY: "1"})
        async with asyncio.timeout(20):
            while await r.count(made.proxy):  # noqa: ASYNC110 - time passes, nothing tells
                await asyncio.sleep(0.05)

        assert await r.numbers(made.proxy) == {}
        assert await r.found(made.proxy, [0.0] * r.DIM, 100) == []
        await alter(made.proxy, delete=(TTL_PROPERTY,))
        assert sorted(await r.numbers(made.proxy)) == list(range(40))
        assert len(await r.found(made.proxy, [0.0] * r.DIM, 100)) == 40
