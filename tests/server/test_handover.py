"""Shards move between writers that join, leave and die, while writes go on (P2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import rows as r

from mishards.clock import SystemClock
from mishards.metadata.store import SqlStore, open_store
from mishards.testing.cluster import Cluster, cluster, until
from mishards.writer.shard import SHARD_LEASES

KEYS = 40
SHARDS = 4


@asynccontextmanager
async def watched(folder: Path, writers: int) -> AsyncIterator[tuple[Cluster, SqlStore]]:
    """A cluster, and its metadata service as an onlooker sees it."""
    async with cluster(folder, writers=writers) as made:
        store = open_store(f"sqlite:///{folder}/metadata.db", SystemClock())
        await store.open()
        try:
            yield made, store
        finally:
            await store.close()


async def owners(store: SqlStore) -> Counter[str]:
    """How many shards each writer owns, by leases in force."""
    return Counter(lease.owner for lease in await store.leases(SHARD_LEASES))


class Writing:
    """Upserts all keys over and over; each row's number is that of the round."""

    def __init__(self, made: Cluster) -> None:
        self._made = made
        self._random = np.random.default_rng(1)
        self.rounds = 0

    async def once(self) -> None:
        number = self.rounds + 1
        await r.write(self._made.proxy, [r.row(key, self._random, number) for key in range(KEYS)])
        self.rounds = number

    async def forever(self) -> None:
        while True:
            await self.once()

    async def check(self) -> None:
        """Every row is there once, as it was last acknowledged."""
        assert await r.numbers(self._made.proxy) == dict.fromkeys(range(KEYS), self.rounds)


async def eventually_own(store: SqlStore, wanted: dict[str, int], writing: asyncio.Task[None] | None = None) -> None:
    async with asyncio.timeout(15):
        while await owners(store) != wanted:
            if writing is not None and writing.done():
                await writing
            await asyncio.sleep(0.02)


async def end(writing: asyncio.Task[None]) -> None:
    """With what it failed of, if it did. A write that is cut off goes on, so the last round may be there or not."""
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing


async def test_a_writer_that_joins_gets_its_share(tmp_path: Path) -> None:
    """Of the shards of a collection that others write all the time; no write fails, and none is lost."""
    async with watched(tmp_path, 1) as (made, store):
        await r.create(made.proxy, shards=SHARDS)
        written = Writing(made)
        await written.once()
        assert await owners(store) == {"writer-1": SHARDS}

        task = asyncio.create_task(written.forever())
        joined = await made.join("writer")
        await eventually_own(store, {"writer-1": 2, str(joined.node_id): 2}, task)
        await end(task)

        await written.once()
        await written.check()


async def test_a_writer_that_stops_gives_its_share_to_the_others(tmp_path: Path) -> None:
    """At once: nobody waits for a lease to run out."""
    async with watched(tmp_path, 2) as (made, store):
        await r.create(made.proxy, shards=SHARDS)
        written = Writing(made)
        await written.once()
        assert await owners(store) == {"writer-1": 2, "writer-2": 2}

        task = asyncio.create_task(written.forever())
        before = written.rounds
        await until(lambda: written.rounds > before + 2)
        await made.stop(made.of("writer")[0])
        assert await owners(store) == {"writer-2": SHARDS}
        before = written.rounds
        await until(lambda: written.rounds > before + 2)
        await end(task)

        await written.once()
        await written.check()


async def test_a_killed_writers_share_is_taken_without_a_write(tmp_path: Path) -> None:
    """When its leases run out, though discovery lists it still; and what it wrote is there."""
    async with watched(tmp_path, 2) as (made, store):
        await r.create(made.proxy, shards=SHARDS)
        written = Writing(made)
        await written.once()

        await made.kill(made.of("writer")[0])
        await eventually_own(store, {"writer-2": SHARDS})

        await written.once()
        await written.check()
