"""The processes behind `mishards demo`: a cluster in a folder of its own, and one more reader."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READERS = 3
PROXIES = 2
SEGMENT_ROWS = 1500  # flushed each time, and not merged: so a small data set spreads as a large one does
SETTINGS = """
member_timeout_s = 5.0  # a killed reader's segments move within the demo
drain_s = 0  # at the end nobody takes over

[builder]
segment_bytes = "4MiB"  # less than two of SEGMENT_ROWS
"""
START_WAIT_S = 40.0
STOP_WAIT_S = 10.0
LOG_LINES_SHOWN = 20


class DemoError(Exception):
    """The demo cannot go on; `log` holds the last lines of what may say why."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        text = log.read_text(errors="replace") if log is not None and log.exists() else ""
        self.log = text.splitlines()[-LOG_LINES_SHOWN:]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes, started by `mishards cluster` in a folder of their own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "cluster.log"

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Cluster]:
        """A cluster that is ready; stopped at the end."""
        port = _free_port()
        settings = folder / "mishards.toml"
        settings.write_text(SETTINGS)
        arguments = ["cluster", "--data", str(folder / "data"), "--port", str(port), "--http-port", "0"]
        arguments += ["--config", str(settings), "--proxies", str(PROXIES), "--readers", str(READERS)]
        with _process(arguments, folder / "cluster.log", "mishards cluster ready") as process:
            yield cls(folder, port, process)

    @contextmanager
    def joined_reader(self) -> Iterator[str]:
        """The node id of one more reader, started by hand as an operator would on another machine."""
        name = "newcomer"
        data = self.folder / "data"
        arguments = ["serve", "--role", "reader", "--node-id", name, "--data", str(self.folder / name)]
        arguments += ["--metadata", f"sqlite:///{data}/metadata.db", "--storage", f"file://{data}/storage"]
        arguments += ["--config", str(self.folder / "mishards.toml")]
        with _process([*arguments, "--http-port", "0"], self.folder / f"{name}.log", "mishards ready"):
            yield name

    def output(self) -> list[str]:
        """What `mishards cluster` printed: the ready line and the table of processes."""
        lines = self.log.read_text(errors="replace").splitlines()
        first = next(i for i, line in enumerate(lines) if "mishards cluster ready" in line)
        return lines[first:]

    def command(self, *arguments: str) -> str:
        """What a `mishards` command about this cluster prints."""
        done = subprocess.run(
            [sys.executable, "-m", "mishards", *arguments, "--data", str(self.folder / "data")],
            capture_output=True,
            text=True,
            timeout=START_WAIT_S,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"mishards {' '.join(arguments)}: {done.stderr.strip()}", self.log)
        return done.stdout.rstrip()

    def members(self, role: str) -> list[dict[str, Any]]:
        """The live processes of a role, as `mishards status --json` lists them."""
        members = json.loads(self.command("status", "--json"))["members"]
        return [member for member in members if role in member["roles"]]


@contextmanager
def _process(arguments: list[str], log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `mishards` process that printed its ready line; terminated at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mishards", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches the demo alone, which ends the others
        )
    try:
        deadline = time.monotonic() + START_WAIT_S
        while ready not in log.read_text(errors="replace"):
            if process.poll() is not None:
                raise DemoError(f"mishards {arguments[0]} ended with exit code {process.returncode}", log)
            if time.monotonic() > deadline:
                raise DemoError(f"mishards {arguments[0]} is not ready after {START_WAIT_S:.0f} s", log)
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
