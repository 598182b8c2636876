"""`mishards cluster`: all nodes of a cluster on one machine, each a `mishards serve --role ...` process of its own.

This process owns the data directory and holds the Milvus port, which the proxies share (SO_REUSEPORT: the kernel
spreads the connections), so that a proxy that is started again finds it free.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

from mishards.cli import show
from mishards.cli.supervisor import Child, Supervisor
from mishards.clock import SystemClock
from mishards.config import Settings, data_dir
from mishards.datadir import claim_data_dir
from mishards.errors import SetupError


def run(settings: Settings, counts: Mapping[str, int], same: Mapping[str, str]) -> None:
    """Run `counts` processes of each role until a signal ends them all; `same`: flags that each of them is given.
    SetupError when one cannot start."""
    if settings.wire_port:
        raise SetupError(f"wire_port = {settings.wire_port} cannot be had by every node of a cluster; leave it at 0")
    data = data_dir(settings)
    with claim_data_dir(data, "mishards cluster"), hold_port(settings.host, settings.port) as port:
        children = [
            Child(f"{role}-{number}", command(settings, role, number, port, same))
            for role, count in counts.items()
            for number in range(1, count + 1)
        ]
        supervisor = Supervisor(children, SystemClock(), _say)
        asyncio.run(supervisor.run(lambda: _announce(children)))


def command(settings: Settings, role: str, number: int, port: int, same: Mapping[str, str]) -> tuple[str, ...]:
    """What starts the node. Only the first proxy has the known HTTP port. What `same` does not say comes from the
    same environment as ours."""
    http_port = settings.http_port if (role, number) == ("proxy", 1) else 0
    flags = {
        "--role": role,
        "--node-id": f"{role}-{number}",
        "--data": str(data_dir(settings)),
        "--host": settings.host,
        "--port": str(port),
        "--http-port": str(http_port),
        **same,
    }
    return (sys.executable, "-m", "mishards", "serve", *(word for flag in flags.items() for word in flag))


@contextmanager
def hold_port(host: str, port: int) -> Iterator[int]:
    """The port, or a free one for 0, bound for sharing but not listened on while the context lasts. SetupError if
    another program, perhaps another cluster that would share it too, listens there."""
    with _bound(host, port) as held:
        yield held.getsockname()[1]


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if port:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections do not matter
                probe.bind(address)
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return held


def _announce(children: list[Child]) -> None:
    doors = dict(re.findall(r"\b(milvus|http)=(\S+)", children[0].ready_line))  # a proxy is the first
    print("mishards cluster ready: " + " ".join(f"{door}={url}" for door, url in doors.items()), flush=True)
    rows = [(child.name, child.name.partition("-")[0], child.pid) for child in children]
    show.processes(rows, Console(stderr=True, highlight=False))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
