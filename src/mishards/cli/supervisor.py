"""Keeps child processes running: starts them all, starts again what dies, ends all of them.

A child says that it is ready by a line on its stdout that starts with `mishards ready`. Exit code 2 before all were
ready once means that it can never start: then everything ends. Every other end is answered by a new start, after a
pause that doubles while the child keeps dying young. Children die with this process, even when it is killed (Linux).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mishards.clock import Clock
from mishards.errors import SetupError

READY = "mishards ready"
REFUSED = 2  # exit code of a set-up error ...
SAYS = "mishards: "  # ... and how its line begins
STOP_S_MAX = 5.0
LINE_BYTES_MAX = 1 << 20
PR_SET_PDEATHSIG = 1  # prctl(2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next start: doubling from `first_s` to `longest_s`, anew after a long life."""

    first_s: float = 0.2
    longest_s: float = 10.0
    reset_s: float = 30.0
    _next_s: float = 0.0

    def pause_s(self, alive_s: float) -> float:
        """The pause after a life of `alive_s`."""
        if self._next_s == 0.0 or alive_s >= self.reset_s:
            self._next_s = self.first_s
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self.longest_s)
        return pause_s


@dataclass(slots=True)
class Child:
    """One program, through all its lives. `process` is the latest, `ready_line` what it said when it was ready."""

    name: str
    command: Sequence[str]
    process: Process | None = None
    ready_line: str = ""
    last_words: str = ""
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)  # Popen.send_signal may reap the child, which asyncio then misses


class Supervisor:
    """Runs the children until told to stop. `say` gets their output and what happens to them, line by line."""

    def __init__(self, children: Sequence[Child], clock: Clock, say: Callable[[str], None]) -> None:
        self._children = children
        self._clock = clock
        self._say = say
        self._stopping = asyncio.Event()
        self._were_ready = False

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Until SIGTERM, SIGINT or SIGHUP, or `stop`; `on_ready` is called once, when all children are ready.

        SetupError: a child refused to start. However it ends, no child is left."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)
        lives = [asyncio.create_task(self._keep(child, on_ready), name=child.name) for child in self._children]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *lives], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end(lives)
            stopping.cancel()
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
        for life in lives:
            life.result()

    def stop(self) -> None:
        """End all children; asked twice, without waiting for them."""
        if self._stopping.is_set():
            self._send_all(signal.SIGKILL)
        self._stopping.set()

    async def _end(self, lives: Sequence[asyncio.Task[None]]) -> None:
        self._stopping.set()
        self._send_all(signal.SIGTERM)
        _, left = await asyncio.wait(lives, timeout=STOP_S_MAX)
        if left:
            self._send_all(signal.SIGKILL)
            await asyncio.wait(left)

    def _send_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)

    # ----------------------------------------------------------------------------------------------------- one child

    async def _keep(self, child: Child, on_ready: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            began_s = self._clock.monotonic_s()
            code = await self._live(child, on_ready)
            if self._stopping.is_set():
                return
            if code == REFUSED and not self._were_ready:
                raise SetupError(f"{child.name}: {child.last_words.removeprefix(SAYS) or 'refused to start'}")
            pause_s = child.backoff.pause_s(self._clock.monotonic_s() - began_s)
            self._say(f"{child.name} (pid {child.pid}) ended {_how(code)}; starting it again in {pause_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _live(self, child: Child, on_ready: Callable[[], None]) -> int:
        """One life of the child, from its start to its exit code."""
        child.ready_line = child.last_words = ""
        child.process = process = await asyncio.create_subprocess_exec(
            *child.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=LINE_BYTES_MAX,
            process_group=0,  # Ctrl-C reaches the supervisor alone, which passes it on
            preexec_fn=dying_with_parent(),
        )
        if self._stopping.is_set():  # while it was being started
            child.send(signal.SIGTERM)
        assert process.stdout is not None and process.stderr is not None

        def hear(line: str) -> None:
            if line.startswith(READY) and not child.ready_line:
                child.ready_line = line
                self._check_all_ready(on_ready)
            else:
                self._say(f"{child.name} | {line}")

        def hear_error(line: str) -> None:
            if not child.last_words.startswith(SAYS):  # a library may complain afterwards
                child.last_words = line
            self._say(f"{child.name} | {line}")

        listening = [
            asyncio.create_task(_lines(process.stdout, hear)),
            asyncio.create_task(_lines(process.stderr, hear_error)),
        ]
        code = await process.wait()
        _, deaf = await asyncio.wait(listening, timeout=1.0)  # a grandchild may hold the pipe open
        for task in deaf:
            task.cancel()
        return code

    def _check_all_ready(self, on_ready: Callable[[], None]) -> None:
        if not self._were_ready and all(child.ready_line for child in self._children):
            self._were_ready = True
            on_ready()


async def _lines(stream: asyncio.StreamReader, hear: Callable[[str], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than LINE_BYTES_MAX; what was read of it is dropped
            continue
        if not line:
            return
        hear(line.decode(errors="replace").rstrip())


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def dying_with_parent() -> Callable[[], None] | None:
    """What the child does before its program: ask the kernel to be killed when this process ends (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # looked up here: the child may only make the call

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)

    return ask
