"""Real `mishards` processes of the system tests: started on free ports, waited for, stopped by pid."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient

START_WAIT_S = 40.0
STOP_WAIT_S = 15.0

# Small limits, so that flush, merge and take-over happen within a test.
SETTINGS = """
member_timeout_s = 5.0

[writer]
lease_s = 2.0
seal_age_s = 2.0
seal_files = 16

[builder]
interval_s = 0.2
merge_files = 2
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_mishards(*arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """One `mishards` command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mishards", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def eventually(condition: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until the condition holds; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"{what}: not within {within_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


class Server:
    """`mishards serve` or `mishards cluster` with its own folder and Milvus port."""

    def __init__(self, folder: Path, command: str, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        settings = folder / "mishards.toml"
        settings.write_text(SETTINGS)
        self._ready = "mishards cluster ready" if command == "cluster" else "mishards ready"
        self._arguments = [command, "--data", str(self.data), "--port", str(self.port), "--http-port", "0"]
        self._arguments += ["--config", str(settings), *arguments]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_uri(self) -> str:
        """The same server under another name: to pymilvus another server, so that its caches are not shared."""
        return f"http://localhost:{self.port}"

    def start(self) -> Server:
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mishards", *self._arguments], stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_WAIT_S
        while self._ready.encode() not in self.log.read_bytes()[offset:]:
            assert self.process.poll() is None, f"ended with exit code {self.process.returncode}:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"not ready after {START_WAIT_S} s:\n{self.log_tail()}"
            time.sleep(0.05)
        return self

    def stop(self) -> int:
        """The exit code after SIGTERM; a process that does not end is killed."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """kill -9, of this process alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def client(self, uri: str | None = None, **arguments: Any) -> MilvusClient:
        """A client with a connection of its own."""
        return MilvusClient(uri or self.uri, dedicated=True, **arguments)

    def members(self, role: str) -> list[dict[str, Any]]:
        """The live processes of a role, as `mishards status --json` lists them."""
        done = run_mishards("status", "--json", "--data", str(self.data))
        assert done.returncode == 0, done.stderr
        return [member for member in json.loads(done.stdout)["members"] if role in member["roles"]]

    def kill_member(self, role: str) -> int:
        """kill -9 one process of a cluster; its pid."""
        pid = int(self.members(role)[0]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
