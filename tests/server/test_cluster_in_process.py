"""A whole cluster: exact answers whatever happens to its nodes (I5, I6, I7, I11, I12, I15)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows as r
from msgspec.structs import replace

from mishards.config import ProxySettings
from mishards.errors import MishardsError
from mishards.testing.cluster import LIVELY, Cluster, cluster
from oracle import Oracle

KEYS = 60


class Workload:
    """Writes through either proxy, the same ones to the oracle, and compares what both answer."""

    def __init__(self, made: Cluster, seed: int) -> None:
        self.made = made
        self.random = np.random.default_rng(seed)
        self.oracle = Oracle("L2")
        self.step = 0

    @property
    def proxy(self) -> Any:
        proxies = self.made.of("proxy")
        return proxies[int(self.random.integers(len(proxies)))].proxy

    async def run(self, steps: int) -> None:
        actions = [self.upsert, self.upsert, self.upsert, self.delete, self.delete_where, self.flush]
        for _ in range(steps):
            self.step += 1
            await actions[int(self.random.integers(len(actions)))]()
            await self.check()

    async def upsert(self) -> None:
        keys = self.random.choice(KEYS, int(self.random.integers(1, 12)), replace=False)
        rows = [r.row(int(key), self.random, self.step) for key in keys]
        await r.write(self.proxy, rows)
        self.oracle.upsert(rows)

    async def delete(self) -> None:
        keys = self.random.choice(KEYS, 4, replace=False).tolist()
        await r.delete(self.proxy, f"id in {keys}")
        self.oracle.delete(keys)

    async def delete_where(self) -> None:
        step = int(self.random.integers(1, self.step + 1))
        await r.delete(self.proxy, f"number == {step}")
        self.oracle.delete_where(lambda row: row["number"] == step)

    async def flush(self) -> None:
        await self.proxy.flush("default", [r.NAME])

    async def check(self) -> None:
        query = self.random.integers(0, 4, r.DIM).tolist()
        limit = int(self.random.choice([1, 5, KEYS]))
        step = int(self.random.integers(1, self.step + 1))
        rows = {row["id"]: row for row in self.oracle.query()}
        best = [rows[hit.key] for hit in self.oracle.search(query, limit)]
        assert await r.found_rows(self.proxy, query, limit) == best, self.step
        assert await r.found(self.proxy, query, limit) == self.oracle.search(query, limit), self.step
        narrowed = self.oracle.search(query, limit, where=lambda row: row["number"] >= step)
        assert await r.found(self.proxy, query, limit, filter=f"number >= {step}") == narrowed, self.step
        near = self.oracle.search(query, limit, radius=6.0, range_filter=2.0)
        assert await r.found(self.proxy, query, limit, radius=6.0, range_filter=2.0) == near, self.step
        everything = {row["id"]: row["number"] for row in self.oracle.query()}
        assert await r.numbers(self.proxy) == everything, self.step
        assert await r.count(self.proxy) == len(self.oracle), self.step


@pytest.mark.parametrize("seed", range(4))
async def test_answers_equal_the_oracle_while_nodes_come_and_go(tmp_path: Path, seed: int) -> None:
    """Every Strong answer is the one that the writes before it imply: while readers are killed, stopped and join,
    while a writer is killed, and while the builder merges; rows fetched with the hits and in a second step alike."""
    direct = ProxySettings(result_bytes_direct=0 if seed % 2 else 1 << 20)
    settings = replace(LIVELY, proxy=direct)
    async with cluster(tmp_path, proxies=2, readers=2, writers=2, settings=settings) as made:
        await r.create(made.proxy, shards=2)
        workload = Workload(made, seed)
        await workload.run(8)
        await made.join("reader")
        await workload.run(6)
        await made.kill(made.of("reader")[0])
        await workload.run(6)
        await made.kill(made.of("writer")[0])
        await made.join("reader")
        await workload.run(6)
        await made.stop(made.of("reader")[0])
        await workload.run(6)


async def test_every_key_is_found_once_at_any_moment(tmp_path: Path) -> None:
    """While rows are replaced without end, searches and queries find each key exactly once, none older than what was
    acknowledged before and none newer than what was sent, though a reader is killed and others join (I6, I7)."""
    random = np.random.default_rng(5)
    async with cluster(tmp_path, proxies=2, readers=2) as made:
        await r.create(made.proxy, shards=2)
        await r.write(made.proxy, [r.row(key, random) for key in range(KEYS)])
        sent, acknowledged = dict.fromkeys(range(KEYS), 0), dict.fromkeys(range(KEYS), 0)

        async def replace_rows() -> None:
            keys = [int(key) for key in random.choice(KEYS, 6, replace=False)]
            for key in keys:
                sent[key] += 1
            await r.write(made.proxy, [r.row(key, random, sent[key]) for key in keys])
            for key in keys:
                acknowledged[key] = sent[key]

        async def look() -> None:
            before = dict(acknowledged)
            seen = await r.numbers(made.of("proxy")[1].proxy)
            assert seen.keys() == before.keys()
            assert all(before[key] <= seen[key] <= sent[key] for key in seen)

        async def census() -> None:
            result = await r.search(made.proxy, [0, 0, 0, 0], KEYS + 10)
            assert sorted(result.keys) == list(range(KEYS))

        async with running(replace_rows, look, census) as rounds:
            await rounds(5)
            await made.join("reader")
            await rounds(5)
            await made.kill(made.of("reader")[0])
            await rounds(10)
            await made.join("reader")
            await rounds(5)
            await made.stop(made.of("reader")[0])
            await rounds(5)


async def test_a_reader_that_stops_lets_no_search_fail(tmp_path: Path) -> None:
    """While a reader drains and stops, others answer in its place."""
    random = np.random.default_rng(1)
    async with cluster(tmp_path, readers=2) as made:
        await r.create(made.proxy, shards=2)
        await r.write(made.proxy, [r.row(key, random) for key in range(KEYS)])
        await made.proxy.flush("default", [r.NAME])

        async def look() -> None:
            assert len(await r.numbers(made.proxy)) == KEYS

        async with running(look, look, look) as rounds:
            await rounds(5)
            await made.stop(made.of("reader")[0])
            await rounds(5)


async def test_a_writer_that_stops_lets_no_write_fail(tmp_path: Path) -> None:
    """While a writer stops, its writes go to the one that takes its shards over."""
    random = np.random.default_rng(1)
    async with cluster(tmp_path, writers=2) as made:
        await r.create(made.proxy, shards=2)

        async def write() -> None:
            await r.write(made.proxy, [r.row(key, random) for key in range(KEYS)])

        async with running(write, write) as rounds:
            await rounds(3)
            await made.stop(made.of("writer")[0])
            await rounds(3)


async def test_after_a_restart_of_everything_nothing_is_lost(tmp_path: Path) -> None:
    """What was acknowledged is found by nodes that never saw it written, all of them killed in between."""
    random = np.random.default_rng(3)
    rows = [r.row(key, random, 7) for key in range(KEYS)]
    async with cluster(tmp_path) as made:
        await r.create(made.proxy)
        await r.write(made.proxy, rows)
        await made.proxy.flush("default", [r.NAME])
        await r.delete(made.proxy, "id < 10")
        for node in list(made.nodes):
            await made.kill(node)

    async with cluster(tmp_path) as made:
        assert await r.numbers(made.proxy) == dict.fromkeys(range(10, KEYS), 7)


async def test_without_a_reader_the_error_says_so(tmp_path: Path) -> None:
    """A search that nobody can answer fails within its deadline and names the cause."""
    async with cluster(tmp_path, readers=1) as made:
        await r.create(made.proxy)
        await r.write(made.proxy, [r.row(1, np.random.default_rng(0))])
        await made.kill(made.of("reader")[0])
        await made.settled()

        with pytest.raises(MishardsError, match="no reader is available") as caught:
            await r.found(made.proxy, [0, 0, 0, 0], 3, timeout_s=1.0)
        assert caught.value.retryable


@contextlib.asynccontextmanager
async def running(*actions: Callable[[], Awaitable[None]]) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Each action over and over, side by side. What is given waits until each was done so many times more; the first
    failure of any ends the test."""
    done = [0] * len(actions)
    moved = asyncio.Condition()

    async def repeat(number: int) -> None:
        while True:
            await actions[number]()
            async with moved:
                done[number] += 1
                moved.notify_all()

    async def rounds(more: int) -> None:
        wanted = [number + more for number in done]
        async with asyncio.timeout(20), moved:
            await moved.wait_for(lambda: all(a >= b for a, b in zip(done, wanted, strict=True)))

    tasks = [asyncio.create_task(repeat(number)) for number in range(len(actions))]
    body = asyncio.current_task()
    assert body is not None
    for task in tasks:
        task.add_done_callback(lambda task: None if task.cancelled() else body.cancel())
    try:
        yield rounds
    except asyncio.CancelledError:
        failure = next((t.exception() for t in tasks if t.done() and not t.cancelled() and t.exception()), None)
        if failure is not None:
            raise failure from None
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
