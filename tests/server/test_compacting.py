"""A compaction that a client asked for, through a whole cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import rows as r
from msgspec.structs import replace

from mishards.testing.cluster import LIVELY, cluster

BUSY = replace(LIVELY, builder=replace(LIVELY.builder, merge_files=50, tombstones_max=100_000))


async def test_a_compaction(tmp_path: Path) -> None:
    """Each shard ends with one segment and without deletes to apply; the answers stay; the merges are told."""
    random = np.random.default_rng(3)
    async with cluster(tmp_path, builders=2, settings=BUSY) as made:
        await r.create(made.proxy, shards=2)
        for start in range(0, 40, 10):
            await r.write(made.proxy, [r.row(key, random) for key in range(start, start + 10)])
            await made.proxy.flush("default", [r.NAME])
        await r.delete(made.proxy, "id < 5")
        wanted = await r.numbers(made.proxy)

        job = await made.proxy.compactions.start("default", r.NAME)
        async with asyncio.timeout(20):
            while not (state := await made.proxy.compactions.state(job)).done:
                assert state.executing >= 1
                assert await r.numbers(made.proxy) == wanted
                await asyncio.sleep(0.05)

        segments = await made.proxy.segments("default", r.NAME)
        assert sorted(segment.shard for segment in segments) == [0, 1]
        assert sum(segment.rows - segment.dead for segment in segments) == len(wanted) == 35
        assert state.executing == 0
        assert {file.segment_id for file in segments} <= {file.segment_id for file in state.merged}
        assert await made.proxy.compactions.merged("default", r.NAME) != []
        assert await r.numbers(made.proxy) == wanted
