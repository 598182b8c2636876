"""1 to 1,000 small collections: how long one takes to create, what they weigh, and searches spread over all of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymilvus import MilvusClient, MilvusException

from bench import client as door
from bench import systems
from bench.context import Context
from bench.data import Dataset
from bench.load import SearchJob
from bench.settings import POINTS
from bench.systems import System

SECTION = "collections"
ROWS = 100  # of each
CREATORS = 32  # at once: pymilvus waits half a second for a collection to be loaded
(POINT,) = (point for point in POINTS if point.row == "nq=1, 4 workers")


def measure(context: Context, data: Dataset) -> None:
    for name in context.systems:
        system = systems.make(name, context.folder / "collections" / name)
        with system.running():
            client = door.connect(system.uri, check=system.program.check)
            _measure(context, data, system, client)
            client.close()


def _measure(context: Context, data: Dataset, system: System, client: MilvusClient) -> None:
    title, settings = systems.TITLES[system.name], context.settings
    rows = door.rows_of(data, 0, ROWS)
    ends_s, have = time.monotonic() + settings.collections_s, 0
    for wanted in settings.collections:
        context.say(f"{wanted} collections: {title}")
        began_s = time.monotonic()
        made = _create(client, data, rows, range(have, wanted), ends_s)
        have += made
        create_s = (time.monotonic() - began_s) / max(1, made)
        names = tuple(f"c{number}" for number in range(have))
        job = SearchJob(system.uri, names, data.queries_file, POINT, settings.warm_s, settings.seconds)
        figures = context.workers.search(job).speed(POINT.nq)
        bytes_ = system.program.memory_bytes()
        context.results.add(SECTION, "", system.name, str(have), create_s=create_s, bytes=bytes_, **figures)
        if have < wanted:
            note = f"{title}: {have} of {wanted} collections after {settings.collections_s:g} s"
            context.results.notes.append(note)
            return


def _create(client: MilvusClient, data: Dataset, rows: list[dict[str, Any]], numbers: range, ends_s: float) -> int:
    """Create the collections c{number}, with the rows in each, until the time is over; how many there are then."""

    def one(number: int) -> bool:
        if time.monotonic() > ends_s:
            return False
        try:
            door.create(client, f"c{number}", data.dim, data.metric)
            client.insert(f"c{number}", rows)
        except MilvusException:
            return False
        return True

    with ThreadPoolExecutor(CREATORS) as creators:
        done = list(creators.map(one, numbers))
    return done.index(False) if False in done else len(done)
