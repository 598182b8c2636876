"""The main table: loading the data, starting again, and searching, of each system.

Loading is measured with one system on the machine. A round of searching starts all of them on their data and puts each
load on one after the other, within seconds: a machine that is slow for a while is slow for all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from pymilvus import MilvusClient

from bench import client as door
from bench import systems
from bench.context import Context
from bench.data import Dataset
from bench.load import InsertJob, Outcome, SearchJob
from bench.processes import peak_memory
from bench.settings import LIMIT, Point
from bench.systems import System

SECTION = "serving"


def measure(context: Context, data: Dataset, rounds: int) -> None:
    """All rows of the main table on the data."""
    for name in context.systems:
        loaded(context, data, name)
    for turn in range(rounds):
        context.say(f"{data.name}, round {turn + 1} of {rounds}")
        all_of_them = [loaded(context, data, name) for name in context.systems]
        _round(context, data, all_of_them if turn % 2 == 0 else all_of_them[::-1])


def loaded(context: Context, data: Dataset, name: str) -> System:
    """The system, stopped, with the data inserted and indexed in this run."""
    if (data.name, name) not in context.loaded:
        context.say(f"{data.name}: loading into {systems.TITLES[name]}")
        system = systems.make(name, context.home(data, name))
        with system.running():
            client = door.connect(system.uri, check=system.program.check)
            _load(context, data, system, client)
            client.close()
        context.loaded[data.name, name] = system
    return context.loaded[data.name, name]


def started(system: System, data: Dataset) -> float:
    """Seconds from its start, now, to the first right answers; call it first thing when it runs."""
    began_s = time.monotonic()
    client = door.connect(system.uri, check=system.program.check)
    door.until_correct(client, data)
    client.close()
    return time.monotonic() - began_s


def search(context: Context, data: Dataset, system: System, point: Point) -> dict[str, float]:
    """Figures of one load on the running system."""
    job = SearchJob(
        system.uri, (door.COLLECTION,), data.queries_file, point, context.settings.warm_s, context.settings.seconds
    )
    cpu_s = system.program.cpu_s()
    outcome = context.workers.search(job)
    cpu_s = system.program.cpu_s() - cpu_s
    return outcome.speed(point.nq) | _quality(outcome, data, point) | {"server_cpu_ms": cpu_s / outcome.sent * 1e3}


def _quality(outcome: Outcome, data: Dataset, point: Point) -> dict[str, float]:
    return {
        "recall": data.recall(outcome.answers, LIMIT, point.percent),
        "wrong": float(data.wrong(outcome.answers, point.percent)),
    }


def _round(context: Context, data: Dataset, in_turn: Sequence[System]) -> None:
    add = context.results.add
    with ExitStack() as stack:
        for system in in_turn:
            stack.enter_context(system.running())
            add(SECTION, data.name, system.name, "restart", seconds=started(system, data))
        peaks = [stack.enter_context(peak_memory(system.program)) for system in in_turn]
        for point in context.settings.points:
            for system in in_turn:
                context.say(f"{data.name}: {point.row}, {systems.TITLES[system.name]}")
                add(SECTION, data.name, system.name, point.row, **search(context, data, system, point))
        for system, peak in zip(in_turn, peaks, strict=True):
            add(SECTION, data.name, system.name, "memory, searching", bytes=peak[0])


def _load(context: Context, data: Dataset, system: System, client: MilvusClient) -> None:
    settings = context.settings
    door.create(client, door.COLLECTION, data.dim, data.metric)
    job = InsertJob(system.uri, door.COLLECTION, data.folder, data.numbers, 0, data.rows, batch=settings.insert_batch)
    with peak_memory(system.program) as peak:
        outcome = context.workers.insert(job, settings.insert_workers)
        if outcome.errors:
            raise door.BenchError(f"{system.name}: {len(outcome.errors)} inserts failed: {outcome.errors[0]}")
        inserted_s = time.monotonic()
        door.until_found(client, data, data.rows - 1)
        searchable_s = time.monotonic() - inserted_s
        client.flush(door.COLLECTION)
        door.until_indexed(client, data.rows)
        indexed_s = time.monotonic() - inserted_s
        door.until_settled(client)
    add = context.results.add
    add(SECTION, data.name, system.name, "insert", rows_s=data.rows / outcome.wall_s, client_cpu_s=outcome.cpu_s)
    add(SECTION, data.name, system.name, "searchable", seconds=searchable_s)
    add(SECTION, data.name, system.name, "indexed", seconds=indexed_s)
    add(SECTION, data.name, system.name, "memory, loading", bytes=peak[0])
