"""What more writers give, and how long writes wait when one is killed: `python -m bench.writers`.

Real processes with default settings on this machine. Throughput: `mishards cluster` with 1, 2 and 4 writers, one
collection with four shards, four client processes that insert batches as fast as they go. Fail-over: two writers that
own two shards each; one of them is killed (-9), and a write that touches all shards is sent at once: the time until it
is acknowledged. Once with `mishards cluster`, which starts the killed writer again, and once with writers that stay
dead, so that the other one has to wait until their leases run out.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from pymilvus import DataType, MilvusClient
from rich.console import Console

from bench import client as door
from bench.processes import Program, free_ports
from mishards.clock import SystemClock
from mishards.metadata.store import open_store

DIM = 128
BATCH = 500
SHARDS = 4
CLIENTS = 4
WRITERS = (1, 2, 4)
SETTLE_S_MAX = 60.0
KEYS = list(range(64))  # of the write that touches all shards


class Seen(NamedTuple):
    """Of the metadata service: the processes of the writers that own shards, and how many each owns."""

    pids: dict[str, int]
    owned: Counter[str]


def bench(
    kills: Annotated[int, typer.Option(min=0, help="Of each kind.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each throughput.")] = 5.0,
    metadata: Annotated[str, typer.Option(help="URL of the metadata service; none: SQLite.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Measure writers on this machine."""
    say = Console(stderr=True, highlight=False).print
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes are stopped, folders removed
    found: dict[str, Any] = {"metadata": metadata.partition(":")[0] or "sqlite", "cores": len(os.sched_getaffinity(0))}
    found["rows_s"] = {}
    for writers in WRITERS:
        found["rows_s"][writers] = round(throughput(writers, seconds, metadata))
        say(f"{writers} writers: {found['rows_s'][writers]} rows/s")
    for name, kill in (("restarted", killed_in_cluster), ("left_dead", killed_for_good)):
        times_s = kill(kills, metadata, say) if kills else []
        if times_s:
            found[f"failover_{name}_s"] = {"p50": round(median(times_s), 2), "max": round(max(times_s), 2)}
            found[f"failover_{name}_all_s"] = [round(each, 2) for each in times_s]
            say(f"{name}: p50 {median(times_s):.2f} s, max {max(times_s):.2f} s over {len(times_s)} kills")
    if as_json:
        typer.echo(json.dumps(found, indent=1))


# ------------------------------------------------------------------------------------------------------- throughput


def throughput(writers: int, seconds: float, metadata: str) -> float:
    """Rows acknowledged a second."""
    with cluster(writers, metadata) as site:
        client = site.new_collection()
        client.insert(site.name, batch(0))  # every shard has its owner
        site.wait(lambda seen: len(seen.owned) == min(writers, SHARDS))
        context = multiprocessing.get_context("spawn")
        ready, go = context.Semaphore(0), context.Event()
        with context.Pool(CLIENTS, _prepare, (ready, go)) as pool:
            jobs = [(site.uri, site.name, number, seconds) for number in range(CLIENTS)]
            answers = pool.starmap_async(_insert, jobs, chunksize=1)
            for _ in range(CLIENTS):
                ready.acquire()
            go.set()
            return sum(answers.get()) / seconds


_ready: Any  # of a process that inserts: that it is ready, and that it may begin
_go: Any


def _prepare(ready: Any, go: Any) -> None:
    global _ready, _go
    _ready, _go = ready, go


def _insert(uri: str, name: str, number: int, seconds: float) -> int:
    """Rows acknowledged within so many seconds, in a process of its own."""
    client = door.connect(uri)
    batches = [batch(1_000_000 * (number + 1) + n * BATCH) for n in range(4)]
    rows = turns = 0
    _ready.release()
    _go.wait()
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        rows_now = batches[turns % len(batches)]
        for row in rows_now:
            row["id"] += len(batches) * BATCH
        client.insert(name, rows_now, timeout=60)
        rows, turns = rows + BATCH, turns + 1
    return rows


def batch(first: int) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(first).standard_normal((BATCH, DIM)).astype(np.float32)
    return [{"id": first + n, "v": vector} for n, vector in enumerate(vectors)]


# --------------------------------------------------------------------------------------------------------- fail-over


def killed_in_cluster(kills: int, metadata: str, say: Callable[[str], None]) -> list[float]:
    """Seconds without a write, by kill; the supervisor starts the killed writer again, under its name."""
    with cluster(2, metadata) as site:
        client = site.new_collection()
        write(client, site.name)
        times_s = []
        for turn in range(kills):
            seen = site.wait(_shared)
            victim = sorted(seen.pids)[turn % 2]
            times_s.append(_kill(seen.pids[victim], client, site.name))
            site.wait(lambda now, was=seen, name=victim: now.pids.get(name) != was.pids[name])  # type: ignore[misc]
        site.leave(client)
        return times_s


def killed_for_good(kills: int, metadata: str, say: Callable[[str], None]) -> list[float]:
    """The same, when the killed writer stays dead; another one joins before the next kill."""
    with tempfile.TemporaryDirectory(prefix="mishards-writers-") as folder:
        (port,) = free_ports(1)
        site = Site(Path(folder), port, metadata)
        rest = site.start("rest", "serve", "--role", "proxy,reader,builder", "--port", str(port))
        writers = {name: site.start(name, "serve", "--role", "writer", "--node-id", name) for name in ("w0", "w1")}
        times_s, joins_s = [], []
        try:
            client = site.new_collection()
            write(client, site.name)
            for turn in range(kills):
                seen = site.wait(lambda now: _shared(now) and set(now.owned) == set(writers))
                victim = sorted(writers)[0]
                times_s.append(_kill(seen.pids[victim], client, site.name))
                writers.pop(victim).stop()
                joined = f"w{turn + 2:02}"
                writers[joined] = site.start(joined, "serve", "--role", "writer", "--node-id", joined)
                began_s = time.monotonic()
                site.wait(lambda now, name=joined: now.owned[name] == SHARDS // 2)  # type: ignore[misc]
                joins_s.append(time.monotonic() - began_s)
            if joins_s:
                say(f"a joining writer has its share after {median(joins_s):.1f} s, at most {max(joins_s):.1f} s")
            site.leave(client)
        finally:
            for program in (*writers.values(), rest):
                program.stop()
        return times_s


def _kill(pid: int, client: MilvusClient, name: str) -> float:
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    write(client, name)
    return time.monotonic() - began_s


def _shared(seen: Seen) -> bool:
    return sorted(seen.owned.values()) == [SHARDS // 2] * 2


def write(client: MilvusClient, name: str) -> None:
    """Acknowledged by all owners."""
    client.upsert(name, [{"id": key, "v": [float(key)] * DIM} for key in KEYS], timeout=60)


# ------------------------------------------------------------------------------------------------------------ sites


class Site:
    """Programs that share a folder and a metadata service."""

    def __init__(self, folder: Path, port: int, metadata: str) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self.name = f"writers_{os.getpid()}_{time.monotonic_ns()}"
        self._folder = folder
        self._metadata = metadata
        self._leases = ""  # how the names of the collection's leases begin
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("MISHARDS_")}
        if metadata:
            self._environment["MISHARDS_METADATA"] = metadata

    def start(self, name: str, *arguments: str) -> Program:
        command = [
            sys.executable,
            "-m",
            "mishards",
            *arguments,
            "--data",
            str(self._folder / "data"),
            "--http-port",
            "0",
        ]
        program = Program(command, self._folder / f"{name}.log", self._folder, self._environment)
        program.start()
        return program

    def new_collection(self) -> MilvusClient:
        client = door.connect(self.uri)
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=DIM)
        client.create_collection(self.name, schema=schema, num_shards=SHARDS, timeout=60)
        self._leases = f"shard/{client.describe_collection(self.name)['collection_id']}/"
        return client

    def leave(self, client: MilvusClient) -> None:
        """The next site has the same metadata service, but another folder."""
        client.drop_collection(self.name, timeout=60)
        client.close()

    def wait(self, condition: Callable[[Seen], bool]) -> Seen:
        """What is seen when the condition holds."""
        ends_s = time.monotonic() + SETTLE_S_MAX
        while not condition(seen := asyncio.run(self._look())):
            if time.monotonic() > ends_s:
                raise door.BenchError(f"the writers are not as expected after {SETTLE_S_MAX:g} s: {seen}")
            time.sleep(0.1)
        return seen

    async def _look(self) -> Seen:
        store = open_store(self._metadata or f"sqlite:///{self._folder}/data/metadata.db", SystemClock())
        await store.open()
        try:
            owned = Counter(str(lease.owner) for lease in await store.leases(self._leases))
            pids = {str(member.id): member.pid for member in await store.members() if member.id in owned}
            return Seen(pids, owned)
        finally:
            await store.close()


@contextmanager
def cluster(writers: int, metadata: str) -> Iterator[Site]:
    """`mishards cluster` with so many writers."""
    with tempfile.TemporaryDirectory(prefix="mishards-writers-") as folder, suppress(FileNotFoundError):
        (port,) = free_ports(1)
        site = Site(Path(folder), port, metadata)
        program = site.start("log", "cluster", "--writers", str(writers), "--readers", "1", "--port", str(port))
        try:
            yield site
        finally:
            program.stop()


if __name__ == "__main__":
    typer.run(bench)
