"""Programs that the bench starts: their end, and the memory and processor time of all their processes (Linux)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
STOP_S = 5.0  # after it a program is killed: Milvus does not end by SIGTERM within a minute
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Program:
    """One program with its children, its output in a file."""

    command: Sequence[str]
    log: Path
    folder: Path
    environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(LEASH), str(os.getpid()), *self.command],
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left; also of children."""
        if self._process is None:
            return
        pids = self.pids()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def check(self) -> None:
        """RuntimeError, with its last words, if it ended by itself."""
        if self._process is None or self._process.poll() is not None:
            words = self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""
            raise RuntimeError(f"{self.command[0]} ended: {words}")

    def pids(self) -> list[int]:
        return _tree(self._process.pid) if self._process is not None else []

    def memory_bytes(self) -> int:
        """Of all its processes, with shared pages divided among those that share them (PSS)."""
        return sum(_pss_bytes(pid) for pid in self.pids())

    def cpu_s(self) -> float:
        """Processor time that its living processes have used."""
        return sum(_cpu_s(pid) for pid in self.pids())


@contextmanager
def peak_memory(program: Program, every_s: float = 0.5) -> Iterator[list[int]]:
    """A list whose only element is, after the context, the most memory that the program was seen to use."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            peak[0] = max(peak[0], program.memory_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], program.memory_bytes())


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += _tree(int(child))
    return found


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S
    return 0.0
