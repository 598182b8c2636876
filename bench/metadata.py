"""What a commit costs in the metadata service: `python -m bench.metadata [URL ...]`.

Commits as small inserts make them (a lease, one file with 4 KiB inline, one link of the chain), one after the other by
each writer, every writer a process. On SQLite in a temporary folder, and on the database of each URL, which must be
empty: `mysql://...`, `postgresql://...`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from mishards import plugins
from mishards.clock import SystemClock, hybrid
from mishards.config import masked
from mishards.model import (
    Collection,
    CollectionId,
    DataType,
    Field,
    FieldId,
    File,
    FileId,
    FileKind,
    NodeId,
    Part,
    Schema,
)
from mishards.ports import CommitRequest, MetadataStore

PAYLOAD = bytes(range(256)) * 16
WARM_COMMITS = 20
CASES = ((1, 1), (4, 4), (4, 1))  # writers, collections

app = typer.Typer(add_completion=False)


class Figures(msgspec.Struct, frozen=True):
    database: str
    writers: int
    collections: int
    commits_per_s: float
    p50_ms: float
    p99_ms: float


@app.command()
def bench(
    urls: Annotated[list[str] | None, typer.Argument(help="Empty databases.", metavar="URL...")] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of each case.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure the latency and the rate of commits."""
    with tempfile.TemporaryDirectory(prefix="mishards-bench-") as folder:
        found = [
            asyncio.run(measure(url, writers, collections, seconds))
            for url in (f"sqlite:///{Path(folder)}/metadata.db", *(urls or ()))
            for writers, collections in CASES
        ]
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(each) for each in found], indent=2))
        return
    table = Table("database", "writers", "collections", "commits/s", "p50 ms", "p99 ms")
    for each in found:
        figures = (each.commits_per_s, each.p50_ms, each.p99_ms)
        table.add_row(each.database, str(each.writers), str(each.collections), *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


async def measure(url: str, writers: int, collections: int, seconds: float) -> Figures:
    """One case, on collections of its own."""
    store = open_store(url)
    await store.open()
    first = await store.take_ids(collections)
    for id in range(first, first + collections):
        await store.create_collection(_collection(id))
    await store.close()
    taken, elapsed_s = await asyncio.to_thread(_race, url, [first + n % collections for n in range(writers)], seconds)
    ordered = sorted(taken)
    return Figures(
        database=masked(url).partition("://")[0],
        writers=writers,
        collections=collections,
        commits_per_s=len(taken) / elapsed_s,
        p50_ms=1000 * statistics.median(ordered),
        p99_ms=1000 * ordered[int(0.99 * (len(ordered) - 1))],
    )


def open_store(url: str) -> MetadataStore:
    store: MetadataStore = plugins.load("metadata", plugins.scheme(url))(url, SystemClock())
    return store


def _race(url: str, collection_of: list[int], seconds: float) -> tuple[list[float], float]:
    """The seconds that each commit of all writers took, and the time from the first to the last."""
    spawn = multiprocessing.get_context("spawn")
    answers: Queue[tuple[float, float, list[float]]] = spawn.Queue()
    ready = spawn.Barrier(len(collection_of))
    processes = [
        spawn.Process(target=_write, args=(url, id, number, seconds, ready, answers))
        for number, id in enumerate(collection_of)
    ]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    taken = [each for _, _, some in found for each in some]
    return taken, max(end for _, end, _ in found) - min(begin for begin, _, _ in found)


def _write(url: str, collection_id: int, number: int, seconds: float, ready: Barrier, answers: Queue[Any]) -> None:
    answers.put(asyncio.run(_commit_for(url, collection_id, number, seconds, ready)))


async def _commit_for(
    url: str, collection_id: int, number: int, seconds: float, ready: Barrier
) -> tuple[float, float, list[float]]:
    store = open_store(url)
    await store.open()
    lease = f"shard/{collection_id}/{number}"
    await store.acquire(lease, NodeId(f"bench-{number}"), "nonce", 600.0)
    next_id = await store.take_ids(1_000_000)
    taken: list[float] = []

    async def commit() -> None:
        nonlocal next_id
        next_id += 1
        await store.commit(_request(collection_id, next_id, lease))

    for _ in range(WARM_COMMITS):
        await commit()
    ready.wait()
    begin_s = now_s = time.monotonic()
    while now_s - begin_s < seconds:
        await commit()
        before_s, now_s = now_s, time.monotonic()
        taken.append(now_s - before_s)
    await store.close()
    return begin_s, now_s, taken


def _collection(id: int) -> Collection:
    fields = (
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="vector", type=DataType.FLOAT_VECTOR, dim=128),
    )
    now = hybrid(SystemClock().unix_ms())
    return Collection(
        id=CollectionId(id), name=f"bench_{id}", schema=Schema(fields=fields), created_ts=now, updated_ts=now
    )


def _request(collection_id: int, id: int, lease: str) -> CommitRequest:
    file = File(
        id=FileId(id),
        collection_id=CollectionId(collection_id),
        shard=0,
        kind=FileKind.ROWS,
        rows=8,
        bytes=len(PAYLOAD),
        parts=(Part(kind="fresh", path="", bytes=len(PAYLOAD)),),
        inline=True,
    )
    return CommitRequest(
        collection_id=CollectionId(collection_id),
        uuid=SystemClock().token(),
        kind="write",
        now_ms=SystemClock().unix_ms(),
        leases=((lease, "nonce"),),
        added=(file,),
        payloads={file.id: PAYLOAD},
    )


if __name__ == "__main__":
    app()
