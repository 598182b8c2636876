"""Private MariaDB and PostgreSQL servers for tests: in temporary folders, on free loopback ports, ended by pid.

A server that cannot be had here makes its tests skipped, and pytest's summary names it; with `CI=true` they fail.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

START_WAIT_S = 30.0
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # where Debian has mariadbd, not in everybody's path
MISSING: dict[str, str] = {}  # services that tests asked for in vain, and why


class SqlServer:
    """One server that a test may kill, pause and start again on its port."""

    name = ""
    scheme = ""
    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"mishards-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        user = self.account()
        if user:
            shutil.chown(self.folder, user)
        self._run(*self.install_command())

    def url(self, database: str) -> str:
        return f"{self.scheme}://mishards@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        database = f"mishards_{next(self._numbers)}"
        engine = create_engine(self.driver_url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {database}"))
        engine.dispose()
        return self.url(database)

    def start(self) -> None:
        """Answers afterwards. A server that was killed may first have to wait for its children to go."""
        ends_s = time.monotonic() + START_WAIT_S
        while True:
            with (self.folder / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    self.serve_command(), stdout=log, stderr=subprocess.STDOUT, user=self.account() or None
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                time.sleep(0.02)
            if time.monotonic() > ends_s:
                raise AssertionError(f"{self.name} does not start:\n{(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def pause(self) -> None:
        """The server hangs: connections stay open and nothing is answered. A thread that runs may go on for a moment:
        this returns when all have stopped."""
        self._signal(signal.SIGSTOP)
        while not self._has_stopped():
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it and delete what it stored."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def account(self) -> str:
        """Whose process it is; "": ours."""
        return ""

    def driver_url(self) -> str:
        raise NotImplementedError

    def install_command(self) -> list[str]:
        raise NotImplementedError

    def serve_command(self) -> list[str]:
        raise NotImplementedError

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, user=self.account() or None, cwd=self.folder
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}"

    def _answers(self) -> bool:
        engine = create_engine(self.driver_url())
        try:
            with engine.connect():
                return True
        except DBAPIError:
            return False
        finally:
            engine.dispose()

    def _signal(self, number: signal.Signals) -> None:
        """To the server and its children: PostgreSQL has a process for each connection."""
        for each in self._pids():
            try:
                os.kill(each, number)
            except ProcessLookupError:
                continue  # a child that has just ended

    def _pids(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _has_stopped(self) -> bool:
        stats = (stat.read_text() for pid in self._pids() for stat in Path(f"/proc/{pid}/task").glob("*/stat"))
        return all(stat.rpartition(")")[2].split()[0] in "TZ" for stat in stats)


class MariaDb(SqlServer):
    name = "MariaDB"
    scheme = "mysql"

    def driver_url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/mysql"

    def install_command(self) -> list[str]:
        owner = f"--user={pwd.getpwuid(os.getuid()).pw_name}"
        return [
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", owner),
            *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
        ]

    def serve_command(self) -> list[str]:
        return [
            *(_found("mariadbd"), "--no-defaults", f"--datadir={self.folder}/data", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"),
            *("--innodb-buffer-pool-size=32M", f"--user={pwd.getpwuid(os.getuid()).pw_name}"),
        ]

    def url(self, database: str) -> str:
        return f"{self.scheme}://root@127.0.0.1:{self.port}/{database}"


class PostgreSql(SqlServer):
    name = "PostgreSQL"
    scheme = "postgresql"

    def account(self) -> str:
        return "postgres" if os.getuid() == 0 else ""  # it refuses to run as root

    def driver_url(self) -> str:
        return f"postgresql+psycopg://mishards@127.0.0.1:{self.port}/postgres"

    def install_command(self) -> list[str]:
        return [
            *(postgresql_program("initdb"), "-D", f"{self.folder}/data", "-U", "mishards", "-A", "trust"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        ]

    def serve_command(self) -> list[str]:
        return [
            *(postgresql_program("postgres"), "-D", f"{self.folder}/data", "-p", str(self.port)),
            *("-k", str(self.folder), "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=32MB"),
        ]


def running(kind: type[SqlServer]) -> Iterator[SqlServer]:
    """The server, started; for a fixture."""
    reason = missing(kind)
    if reason:
        MISSING[kind.name] = reason
        if os.environ.get("CI") == "true":
            pytest.fail(f"{kind.name} is needed with CI=true: {reason}")
        pytest.skip(f"{kind.name}: {reason}")
    server = kind()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def missing(kind: type[SqlServer]) -> str:
    """Why it cannot be had; "" when it can."""
    programs = [postgresql_program("initdb")] if kind is PostgreSql else ["mariadbd", "mariadb-install-db"]
    lost = [program for program in programs if shutil.which(program, path=SEARCHED) is None]
    return f"{', '.join(lost)} not found (`make services` installs it from Debian packages)" if lost else ""


def postgresql_program(name: str) -> str:
    """Debian keeps the programs of the server out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else name)


def _found(program: str) -> str:
    return shutil.which(program, path=SEARCHED) or program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
