"""Where the latency of one search goes: the client's library, the way through the server, and the index itself.

The same searches through pymilvus, as finished requests over bare gRPC (whose answers nobody reads), and a request that
a server answers without work (its version), one at a time and in turn. The slowest part, the search of the index alone,
is measured in this process: see `indexes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2

from bench import client as door
from bench import settings as s
from bench import systems
from bench.context import Context
from bench.data import Dataset
from bench.serving import loaded, started

SECTION = "overhead"
SERVICE = "/milvus.proto.milvus.MilvusService/"
SEARCHES = 200  # requests prepared
POINT = s.Point("", 1)


def measure(context: Context, data: Dataset) -> None:
    for name in context.systems:
        context.say(f"{data.name}: where latency goes, {systems.TITLES[name]}")
        system = loaded(context, data, name)
        with system.running():
            started(system, data)
            client = door.connect(system.uri)
            figures = _figures(client, system.uri, data, context.settings)
            client.close()
        context.results.add(SECTION, data.name, name, "latency", **figures)


def _figures(client: MilvusClient, uri: str, data: Dataset, settings: s.Settings) -> dict[str, float]:
    ready = [request(data, number) for number in range(SEARCHES)]
    nothing = milvus_pb2.GetVersionRequest().SerializeToString()
    with grpc.insecure_channel(uri.removeprefix("http://")) as channel:
        bare_search, bare_version = _bare(channel, "Search"), _bare(channel, "GetVersion")
        calls: dict[str, Callable[[int], object]] = {
            "pymilvus_ms": lambda turn: door.search(client, door.COLLECTION, [data.queries[turn]], POINT),
            "grpc_ms": lambda turn: bare_search(ready[turn]),
            "nothing_ms": lambda turn: bare_version(nothing),
        }
        return in_turn(calls, settings.warm_s, 2 * settings.seconds)


def in_turn(calls: dict[str, Callable[[int], object]], warm_s: float, seconds: float) -> dict[str, float]:
    """The median time of each call, in ms, called one after the other until the time is over."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    begin_s = time.monotonic() + warm_s
    turn = 0
    while (now_s := time.monotonic()) < begin_s + seconds:
        turn = (turn + 1) % SEARCHES
        for name, call in calls.items():
            sent_s = time.perf_counter()
            call(turn)
            if now_s >= begin_s:
                taken[name].append((time.perf_counter() - sent_s) * 1e3)
    return {name: float(np.median(times)) for name, times in taken.items()}


def request(data: Dataset, number: int) -> bytes:
    """The bytes of the request that `client.search` sends."""
    made = Prepare.search_requests_with_expr(
        door.COLLECTION,
        "v",
        {"params": s.SEARCH, "metric_type": data.metric},
        s.LIMIT,
        data=[data.queries[number]],
        use_default_consistency=False,
        consistency_level=2,  # Bounded, and the timestamp that stands for it
        guarantee_timestamp=2,
    )
    return bytes(made.SerializeToString())


def _bare(channel: grpc.Channel, method: str) -> Callable[[bytes], bytes]:
    """A call of bytes for bytes."""
    call: Callable[[bytes], bytes] = channel.unary_unary(SERVICE + method)
    return call
