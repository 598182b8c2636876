"""Fixtures of the system tests: a running standalone server and a running cluster, shared by all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient
from servers import Server

_numbers = itertools.count(1)

KINDS = {
    "standalone": ("serve",),
    "cluster": ("cluster", "--proxies", "2", "--readers", "3", "--writers", "1", "--builders", "1"),
}


@pytest.fixture(scope="session", params=list(KINDS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running standalone server, then a running cluster: two proxies, three readers, a writer, a builder."""
    server = Server(tmp_path_factory.mktemp(request.param), *KINDS[request.param])
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[MilvusClient]:
    """A client of the running server."""
    client = server.client(timeout=30.0)
    yield client
    client.close()


@pytest.fixture
def name(client: MilvusClient) -> Iterator[str]:
    """A fresh collection name; what was made of it is dropped."""
    name = f"c{next(_numbers)}"
    yield name
    client.drop_collection(name)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own: `launch("serve", ...)`; whatever still runs is killed at the end."""
    servers: list[Server] = []

    def launch(*arguments: str) -> Server:
        server = Server(tmp_path / f"server{len(servers)}", *arguments)
        servers.append(server)
        return server.start()

    yield launch
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of the server's log."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Server):
                report.sections.append((f"log of {value.folder.name}", value.log_tail()))
    return report
