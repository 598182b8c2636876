"""The cluster under test: one `mishards serve` process a node, over SQLite or a private SQL server.

Each node has its own data directory, as on a machine of its own; metadata and storage are shared. Proxies share a port,
so that clients of one that was killed reach the other. Small limits let rows be sealed, merged and indexed all the
time.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pymilvus import MilvusClient
from tests.services import MariaDb, PostgreSql, SqlServer, free_port, missing

from tools.census.history import CALL_S_MAX

SETTINGS = """
metadata = "{metadata}"
storage = "file://{folder}/storage"
port = {port}
http_port = 0
member_timeout_s = 5.0

[writer]
lease_s = 2.0
inline_bytes_max = 2048
seal_files = 8
seal_age_s = 1.5

[builder]
interval_s = 0.2
merge_files = 2
tombstones_max = 2000
task_lease_s = 4.0
garbage_grace_s = {grace_s}
"""
SQL_SERVERS: dict[str, type[SqlServer]] = {"mariadb": MariaDb, "postgresql": PostgreSql}
DATABASES = ("sqlite", *SQL_SERVERS)
START_S_MAX = 90.0
STOP_S_MAX = 20.0
DEFECTS = ("Traceback (most recent call last)", "level=error", "was never retrieved")  # that no fault explains


class Node:
    """One process, through all its lives."""

    def __init__(self, name: str, role: str, folder: Path, settings: Path) -> None:
        self.name = name
        self.role = role
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "mishards", "serve", "--role", role, "--node-id", name]
        self._command += ["--data", str(folder / name), "--config", str(settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0  # where this life began

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._log_offset = output.tell()
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def wait(self) -> bool:
        """Whether it got ready."""
        ends_s = time.monotonic() + START_S_MAX
        while b"mishards ready" not in self.log.read_bytes()[self._log_offset :]:
            if not self.runs or time.monotonic() > ends_s:
                return False
            time.sleep(0.05)
        return True

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> bool:
        """SIGTERM; whether it ended in time by itself."""
        if self._process is None:
            return True
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


class Cluster:
    """All nodes, their settings and their database."""

    def __init__(self, folder: Path, database: str, counts: dict[str, int], grace_s: float) -> None:
        self.folder = folder
        self.sql = _sql_server(database)
        self._port = free_port()
        self._held = socket.socket()  # keeps the port ours while no proxy runs; nobody listens on it
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", self._port))
        self._settings = folder / "mishards.toml"
        metadata = f"sqlite:///{folder}/metadata.db" if self.sql is None else self.sql.new_database()
        self._settings.write_text(SETTINGS.format(metadata=metadata, folder=folder, port=self._port, grace_s=grace_s))
        self.nodes: dict[str, Node] = {}
        for role, count in counts.items():
            for number in range(1, count + 1):
                self.add(f"{role}-{number}", role)

    def add(self, name: str, role: str) -> Node:
        """A node that is not started yet."""
        node = self.nodes[name] = Node(name, role, self.folder, self._settings)
        return node

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            if not node.wait():
                raise SystemExit(f"{node.name} did not start:\n{node.log.read_text()[-3000:]}")

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://127.0.0.1:{self._port}", dedicated=True, timeout=CALL_S_MAX)

    def running(self, role: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.role == role and node.runs]

    def stop(self) -> list[str]:
        """The nodes that did not end by themselves within 20 s of SIGTERM."""
        running = [node for node in self.nodes.values() if node.runs]
        for node in running:
            node.send(signal.SIGCONT)
            node.send(signal.SIGTERM)
        return [node.name for node in running if not node.stop()]

    def close(self) -> None:
        if self.sql is not None:
            with suppress(AssertionError):
                self.sql.remove()
        self._held.close()

    def defects(self) -> list[str]:
        """Lines of the logs that tell of a defect in the program."""
        return [
            f"{node.name} | {line}"
            for node in self.nodes.values()
            if node.log.exists()
            for line in node.log.read_text(errors="replace").splitlines()
            if any(words in line for words in DEFECTS)
        ]


def _sql_server(database: str) -> SqlServer | None:
    if database == "sqlite":
        return None
    reason = missing(SQL_SERVERS[database])
    if reason:
        raise SystemExit(f"no {database}: {reason}")
    server = SQL_SERVERS[database]()
    server.start()
    return server
