"""What the processes of a cluster tell about themselves over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import rows as r
from prometheus_client.parser import text_string_to_metric_families

from mishards.errors import Kind, MishardsError
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Metric
from mishards.testing.cluster import WAIT_S_MAX, Node, cluster

IN_TROUBLE_ONLY = {c.COMMITS_REFUSED.name, c.COMMITS_UNANSWERED.name}
METRICS = {metric.name: metric for metric in vars(c).values() if isinstance(metric, Metric)}
Told = dict[str, dict[tuple[str, ...], float]]  # by name, then by the values of the labels


async def told(node: Node) -> Told:
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{node.http_port}/metrics")).text
    found: Told = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("mishards_"):
                labels = tuple(sample.labels[label] for label in METRICS[sample.name].labels)
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_what_a_cluster_tells(tmp_path: Path) -> None:
    """Each role tells its own part, together all that is in the catalogue but what only troubles bring about; the
    numbers are those of what happened."""
    async with cluster(tmp_path, builders=1) as made:
        await r.create(made.proxy, shards=1)
        random = np.random.default_rng(1)
        for _ in range(4):
            await r.write(made.proxy, [r.row(key, random) for key in range(10)])
        await r.search(made.proxy, [0.0] * r.DIM, 3)
        await made.proxy.flush("default", [r.NAME])
        async with asyncio.timeout(WAIT_S_MAX):
            while c.TASKS.name not in await told(made.of("builder")[0]):
                pass

        pages = {role: await told(made.of(role)[0]) for role in ("writer", "reader", "builder", "proxy")}

        assert {name for page in pages.values() for name in page} == METRICS.keys() - IN_TROUBLE_ONLY
        writer, shard = pages["writer"], ("default", r.NAME, "0")
        assert writer[c.SHARDS_OWNED.name] == {(): 1}
        assert writer[c.COMMITS.name][("write",)] == 4
        assert writer[c.COMMITS.name][("layout",)] >= 1
        assert writer[c.SEGMENTS.name].keys() == writer[c.FULLNESS.name].keys() == {shard}
        assert writer[c.COMMITS_LOST.name] == pages["reader"][c.READER_MISSING.name] == {(): 0}
        assert pages["reader"][c.READER_LAG.name].keys() == {("default", r.NAME)}
        assert {role for _, role, _ in pages["proxy"][c.INFO.name]} == {"proxy"}
        assert pages["proxy"][c.METADATA_UP.name] == {(): 1}
        assert pages["proxy"][c.MEMBERS.name] == {(role,): 1 for role in pages}


async def test_a_live_file_that_is_not_there_is_counted(tmp_path: Path) -> None:
    """A reader that must load what storage has lost tells so; one whose file was replaced meanwhile does not."""
    async with cluster(tmp_path) as made:
        await r.create(made.proxy)
        random = np.random.default_rng(1)
        await r.write(made.proxy, [r.row(key, random) for key in range(10)])
        (reader,) = made.of("reader")
        await made.stop(reader)
        await made.proxy.flush("default", [r.NAME])
        for lost in (tmp_path / "storage").glob("*/0/*/*.vectors"):
            lost.unlink()
        other = await made.join("reader")
        await made.settled()

        try:
            await r.search(made.proxy, [0.0] * r.DIM, 3)
        except MishardsError as error:
            assert error.kind is not Kind.INTERNAL
        missing = (await told(other))[c.READER_MISSING.name][()]

        assert missing >= 1
