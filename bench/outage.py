"""What an outage of the metadata service costs a search: `python -m bench.outage URL`.

The server reaches the metadata service, a MySQL or PostgreSQL database of its own, through a relay that can be cut.
Loads with and without the service take turns, so that a slow minute of the machine is slow for both. Searches are at
Bounded consistency, which an outage leaves to the proxy's last view.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from sqlalchemy import make_url

from bench import client as door
from bench import load, systems
from bench.data import Dataset, clustered
from bench.processes import free_ports
from bench.settings import Point

ROWS = 50_000
POINT = Point("nq=1, 4 workers", 4)
PORTS = {"mysql": 3306, "mariadb": 3306, "postgresql": 5432}
NOTICED_S = 7.0  # after a cut: then polls have failed, and Bounded's bound is over
STATES = ("up", "down")


class Relay:
    """Passes connections on, or refuses them. It lives in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        (self.port,) = free_ports(1)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def let_pass(self) -> None:
        self._do(self._listen())

    def cut(self) -> None:
        self._do(self._shut())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)
        finally:
            self._open -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
    writer.close()


def bench(
    url: Annotated[str, typer.Argument(help="An empty database, such as mysql://user@host:port/name.")],
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of one load.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Measure searches with the metadata service and without it."""
    say = Console(stderr=True, highlight=False).print
    found: dict[str, Any] = {}
    data = clustered(ROWS)
    with load.pool(POINT.workers) as workers:
        for name in ("standalone", "cluster"):
            with _site(url, name, data, workers) as (system, relay):
                turns: dict[str, list[dict[str, float]]] = {state: [] for state in STATES}
                for _ in range(rounds):
                    for state in STATES:
                        if state == "down":
                            relay.cut()
                            time.sleep(NOTICED_S)
                        turns[state].append(_search(workers, system, data, seconds))
                    relay.let_pass()
                    time.sleep(NOTICED_S)
            found[name] = {state: _middle(each) for state, each in turns.items()}
            for state in STATES:
                say(
                    f"{name}, {state}: "
                    + ", ".join(f"{what} {value:.2f}" for what, value in found[name][state].items())
                )
    if as_json:
        typer.echo(json.dumps(found, indent=1))


@contextmanager
def _site(url: str, name: str, data: Dataset, workers: load.Workers) -> Iterator[tuple[systems.System, Relay]]:
    """One of `systems` with the data, on a metadata service behind a relay; its collection is dropped in the end."""
    parsed = make_url(url)
    relay = Relay(parsed.host or "127.0.0.1", parsed.port or PORTS[parsed.get_backend_name()])
    relay.let_pass()
    with tempfile.TemporaryDirectory(prefix="mishards-outage-") as folder:
        system = systems.make(name, Path(folder))
        through = parsed.set(host="127.0.0.1", port=relay.port).render_as_string(hide_password=False)
        system.program.environment = {**system.program.environment, "MISHARDS_METADATA": through}
        with system.running():
            client = door.connect(system.uri, check=system.program.check)
            door.create(client, door.COLLECTION, data.dim, data.metric)
            rows = load.InsertJob(system.uri, door.COLLECTION, data.folder, data.numbers, 0, data.rows, batch=5_000)
            workers.insert(rows, 1)
            client.flush(door.COLLECTION)
            door.until_indexed(client, data.rows)
            door.until_settled(client)
            yield system, relay
            client.drop_collection(door.COLLECTION, timeout=60)
            client.close()


def _search(workers: load.Workers, system: systems.System, data: Dataset, seconds: float) -> dict[str, float]:
    cpu_s = system.program.cpu_s()
    outcome = workers.search(
        load.SearchJob(system.uri, (door.COLLECTION,), data.queries_file, POINT, warm_s=0.7, seconds=seconds)
    )
    return {**outcome.speed(1), "server_cpu_ms": (system.program.cpu_s() - cpu_s) / outcome.sent * 1e3}


def _middle(turns: list[dict[str, float]]) -> dict[str, float]:
    return {what: median(turn[what] for turn in turns) for what in turns[0]}


if __name__ == "__main__":
    typer.run(bench)
