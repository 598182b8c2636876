"""Searching while inserting: what a steady stream of inserts, with flushes, merges and index builds going on, costs."""

from __future__ import annotations

import time

from pymilvus import MilvusClient, MilvusException

from bench import client as door
from bench import systems
from bench.context import Context
from bench.data import Dataset
from bench.load import InsertJob, SearchJob
from bench.serving import loaded, started
from bench.settings import POINTS
from bench.systems import System

SECTION = "inserting"
(POINT,) = (point for point in POINTS if point.row == "nq=1, 4 workers")
BATCHES_S = 10  # inserts a second


def measure(context: Context, data: Dataset) -> None:
    """Adds rows to the data that the systems hold, so nothing that knows the truth may come after it."""
    for name in context.systems:
        context.say(f"{data.name}: searching while inserting, {systems.TITLES[name]}")
        system = loaded(context, data, name)
        with system.running():
            started(system, data)
            client = door.connect(system.uri)
            _measure(context, data, system, client)
            client.close()
        del context.loaded[data.name, name]


def _measure(context: Context, data: Dataset, system: System, client: MilvusClient) -> None:
    settings = context.settings
    search = SearchJob(system.uri, (door.COLLECTION,), data.queries_file, POINT, settings.warm_s, 2 * settings.seconds)
    idle = context.workers.search(search).speed(POINT.nq)
    rate = settings.steady_rows_s
    insert = InsertJob(
        system.uri,
        door.COLLECTION,
        data.folder,
        data.numbers,
        first=0,
        last=int(rate * (settings.steady_s + settings.warm_s)),
        batch=rate // BATCHES_S,
        rows_s=rate,
        first_id=data.rows,
    )
    busy = SearchJob(system.uri, (door.COLLECTION,), data.queries_file, POINT, settings.warm_s, settings.steady_s)
    inserters = context.workers.begin([insert], skip=POINT.workers)
    searchers = context.workers.begin([busy] * POINT.workers)
    flushes, late = _flush(client, settings.steady_s, settings.flush_every_s)
    under_inserts = context.workers.finish(searchers).speed(POINT.nq)
    inserted = context.workers.finish(inserters)
    if late:
        text = f"did not end {late} of {flushes} flushes within {settings.flush_every_s:g} s"
        context.results.notes.append(f"{systems.TITLES[system.name]} {text}")
    add = context.results.add
    add(SECTION, data.name, system.name, "idle", **idle)
    add(SECTION, data.name, system.name, "inserting", **under_inserts)
    add(
        SECTION,
        data.name,
        system.name,
        "inserts",
        rows_s=(insert.last - insert.first) / inserted.wall_s,
        client_cpu=inserted.cpu_s / inserted.wall_s,
        p99_ms=inserted.speed(1)["p99_ms"],
        errors=len(inserted.errors),
        flushes=flushes - late,
    )


def _flush(client: MilvusClient, seconds: float, every_s: float) -> tuple[int, int]:
    """Flush every now and then for so long; how often, and how many did not end in time."""
    flushes = late = 0
    began_s = time.monotonic()
    while (next_s := began_s + (flushes + 1) * every_s) < began_s + seconds:
        time.sleep(max(0.0, next_s - time.monotonic()))
        flushes += 1
        try:
            client.flush(door.COLLECTION, timeout=every_s)
        except MilvusException:
            late += 1
    return flushes, late
