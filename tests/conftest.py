"""What all tests share: this folder is importable (`from oracle import Oracle`), logging starts unconfigured, and SQL
servers that some need are started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

from services import MISSING, MariaDb, PostgreSql, SqlServer, running

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # what the clients' grpcio does in a fork may abort a child of ours


@pytest.fixture(autouse=True)
def logging_unconfigured() -> Iterator[None]:
    """A server started by one test must not decide what the next one can capture."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[SqlServer]:
    """A MariaDB server of our own. Whoever kills it starts it again."""
    yield from running(MariaDb)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[SqlServer]:
    """A PostgreSQL server of our own. Whoever kills it starts it again."""
    yield from running(PostgreSql)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the services whose tests were skipped."""
    for name, reason in MISSING.items():
        terminalreporter.write_line(f"not tested with {name}: {reason}")
