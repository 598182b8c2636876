"""Where the processor time of one search goes, layer by layer: `python -m bench.layers`.

One server in this process, one search. Each layer is called again and again with what the layer above it gave it, so
that the difference between two rows is what a layer costs by itself. No client, no network and warm caches: what a
search costs in a busy server is up to twice as much.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from pymilvus.client.prepare import Prepare
from rich.console import Console
from rich.table import Table

from bench import client as door
from bench import settings as s
from bench.data import Dataset, clustered
from mishards import config
from mishards.clock import SystemClock
from mishards.reader import node as reader_node
from mishards.server.node import Server
from mishards.wire.channel import Channel
from mishards.wire.remote import RemoteReader
from mishards.wire.serving import WireServer

ROWS = 100_000
BATCH = 5_000
SEARCHES = 500
ROUNDS = 7
POINT = s.Point("", 1)

Call = Callable[[], Awaitable[object]]


async def main() -> None:
    data = clustered(ROWS)
    with tempfile.TemporaryDirectory(prefix="mishards-layers-") as folder:
        flags = {"data": folder, "port": 0, "http_port": 0, "log_level": "warning"}
        server = Server(config.load(None, {}, flags).settings, SystemClock())
        await server.start()
        try:
            await asyncio.to_thread(fill, server.uri, data)
            rows = [(name, await microseconds(call)) for name, call in (await layers(server, data)).items()]
        finally:
            await server.stop()
    show(rows)


def fill(uri: str, data: Dataset) -> None:
    """The rows, in one indexed segment."""
    client = door.connect(uri)
    door.create(client, door.COLLECTION, data.dim, data.metric)
    for start in range(0, data.rows, BATCH):
        numbers = range(start, min(start + BATCH, data.rows))
        rows = [{"id": i, "v": data.vectors[i], "n": int(data.numbers[i])} for i in numbers]
        client.insert(door.COLLECTION, rows)
    client.flush(door.COLLECTION)
    while client.describe_index(door.COLLECTION, "v")["pending_index_rows"]:
        time.sleep(0.2)
    time.sleep(3)  # the reader takes the index over
    client.close()


async def layers(server: Any, data: Dataset) -> dict[str, Call]:
    """A call of each layer, the outermost first."""
    payload = Prepare.search_requests_with_expr(
        collection_name=door.COLLECTION,
        anns_field="v",
        param={"metric_type": data.metric, "params": s.SEARCH},
        limit=s.LIMIT,
        data=data.queries[:1],
    ).SerializeToString()
    dispatcher = server._doors[0]._listener._service._dispatcher
    proxy, reader = server._proxy, server._services["reader"]
    asked = await caught(proxy, "search", lambda: dispatcher.answer("Search", payload, {}, None))
    part = await caught(reader, "search", lambda: proxy.search(asked))
    sources, question, groups = await caught(reader_node, "search", lambda: reader.search(part))
    index = sources[0].index(question.index_id)
    wire = WireServer({"reader": reader}, SystemClock())
    remote = RemoteReader(Channel(await wire.start("127.0.0.1", 0), SystemClock()))
    return {
        "request bytes to response bytes": lambda: dispatcher.answer("Search", payload, {}, None),
        "proxy: plan, scatter, merge": lambda: proxy.search(asked),
        "reader, over the wire (both ends)": lambda: remote.search(part),
        "reader": lambda: reader.search(part),
        "evaluation of the sources": lambda: done(reader_node.search(sources, question, groups)),
        "index": lambda: done(index.search(question.queries, s.LIMIT, s.SEARCH, None)),
    }


async def caught(owner: Any, name: str, call: Call) -> Any:
    """What `owner.name` is called with when `call` runs: one argument, or several as a tuple."""
    original, seen = getattr(owner, name), []

    def spy(*given: Any) -> Any:
        seen.append(given)
        return original(*given)

    setattr(owner, name, spy)
    try:
        await call()
    finally:
        setattr(owner, name, original)
    return seen[-1][0] if len(seen[-1]) == 1 else seen[-1]


async def done(result: object) -> object:
    return result


async def microseconds(call: Call) -> float:
    """Processor time of one call, of all threads: the best of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begin_s = time.process_time()
        for _ in range(SEARCHES):
            await call()
        rounds.append((time.process_time() - begin_s) / SEARCHES)
    return 1e6 * min(rounds)


def show(rows: list[tuple[str, float]]) -> None:
    table = Table(title=f"One search, {ROWS:,} rows, HNSW: processor time of each layer and all below it")
    table.add_column("layer")
    table.add_column("us", justify="right")
    for name, taken_us in rows:
        table.add_row(name, f"{taken_us:.0f}")
    Console().print(table)


if __name__ == "__main__":
    uvloop.run(main())
