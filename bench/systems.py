"""The systems that are compared, each a program on this machine with a folder of its own, reached by pymilvus."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import milvus
from bench.processes import Program, free_ports

TITLES = {"milvus": f"Milvus {milvus.VERSION}", "standalone": "Mishards", "cluster": "Mishards cluster"}


@dataclass(slots=True)
class System:
    """A system with its data; may be started again and again on them."""

    name: str
    uri: str
    program: Program

    @contextmanager
    def running(self) -> Iterator[System]:
        """Started, but perhaps not ready to answer; stopped at the end."""
        self.program.start()
        try:
            yield self
        finally:
            self.program.stop()


def make(name: str, folder: Path, readers: int = 2, environment: Mapping[str, str] = os.environ) -> System:
    """One of `settings.SYSTEMS` with its data in the folder, which may hold some of an earlier start."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "milvus":
        return _milvus(folder, environment)
    return _mishards(name, folder, readers, environment)


def _mishards(name: str, folder: Path, readers: int, environment: Mapping[str, str]) -> System:
    (port,) = free_ports(1)
    command = ["serve"] if name == "standalone" else ["cluster", "--readers", str(readers)]
    flags = ["--data", str(folder / "data"), "--port", str(port), "--http-port", "0"]
    kept = {key: value for key, value in environment.items() if not key.startswith("MISHARDS_")}  # default settings
    program = Program([sys.executable, "-m", "mishards", *command, *flags], folder / "log", folder, kept)
    return System(name, f"http://127.0.0.1:{port}", program)


def _milvus(folder: Path, environment: Mapping[str, str]) -> System:
    milvus.fetch()
    port = milvus.configure(folder)
    command = [str(milvus.PROGRAMS / "milvus"), "run", "standalone"]
    program = Program(command, folder / "log", folder, {**environment, **milvus.environment(folder)})
    return System("milvus", f"http://127.0.0.1:{port}", program)
