"""The supervisor of `mishards cluster`, with small Python programs for nodes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mishards.cli.supervisor import Backoff, Child, Supervisor
from mishards.clock import SystemClock
from mishards.errors import SetupError

WAIT_S = 10.0
READY = "print('mishards ready: x=1', flush=True)\n"
UNTIL_TERMINATED = "import signal\nsignal.sigwait([signal.SIGTERM])\n"  # blocked by the prologue
PROLOGUE = "import signal, sys, os, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"


def child(name: str, program: str) -> Child:
    return Child(name, (sys.executable, "-S", "-c", PROLOGUE + program))


class Stage:
    """A supervisor, what it said, and its end."""

    def __init__(self, *children: Child) -> None:
        self.children = children
        self.said: list[str] = []
        self.ready = asyncio.Event()
        self._heard = asyncio.Condition()
        self.supervisor = Supervisor(children, SystemClock(), self._say)
        self.running = asyncio.ensure_future(self.supervisor.run(self.ready.set))

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Wait for what becomes true when something is said."""
        async with asyncio.timeout(WAIT_S), self._heard:
            await self._heard.wait_for(wanted)

    async def until_ready(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.ready.wait()

    async def end(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.running

    def _say(self, line: str) -> None:
        self.said.append(line)
        self._notice = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._heard:
            self._heard.notify_all()


def test_pause_doubles_up_to_its_limit_and_starts_anew() -> None:
    """Dying young doubles the pause up to ten seconds; after thirty seconds alive it is short again."""
    backoff = Backoff()

    assert [backoff.pause_s(0.1) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.pause_s(29.9) == 10.0
    assert backoff.pause_s(30.0) == 0.2
    assert backoff.pause_s(1.0) == 0.4


@pytest.mark.process
async def test_ready_when_all_children_are() -> None:
    """Readiness is told once, when the last child has said so; a signal ends all of them."""
    stage = Stage(child("a", READY + UNTIL_TERMINATED), child("b", READY + UNTIL_TERMINATED))
    await stage.until_ready()
    pids = [one.pid for one in stage.children]

    os.kill(os.getpid(), signal.SIGTERM)
    await stage.end()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.process
async def test_dead_child_is_started_again() -> None:
    """A killed child comes back as the same command under a new pid; the others live on."""
    stage = Stage(child("a", READY + UNTIL_TERMINATED), child("b", READY + UNTIL_TERMINATED))
    await stage.until_ready()
    first, other = (one.pid for one in stage.children)

    os.kill(first, signal.SIGKILL)
    await stage.until(lambda: any("starting it again" in line for line in stage.said))
    assert stage.said == [f"a (pid {first}) ended by signal 9; starting it again in 0.2 s"]
    stage.children[0].command = child("a", "print('back', file=sys.stderr)\n" + UNTIL_TERMINATED).command
    await stage.until(lambda: "a | back" in stage.said)
    assert stage.children[0].pid != first
    assert stage.children[1].pid == other

    stage.supervisor.stop()
    await stage.end()


@pytest.mark.process
async def test_child_that_refuses_to_start_ends_everything() -> None:
    """Exit code 2 before all were ready is a SetupError with the child's last words, and no child is left."""
    stage = Stage(
        child("good", READY + UNTIL_TERMINATED),
        child("bad", "print('mishards: port 1 is in use\\nException ignored', file=sys.stderr)\nsys.exit(2)\n"),
    )

    with pytest.raises(SetupError, match=r"^bad: port 1 is in use$"):
        await stage.end()
    process = stage.children[0].process
    assert process is not None
    assert process.returncode is not None


@pytest.mark.process
async def test_child_that_crashes_at_start_is_tried_again(tmp_path: Path) -> None:
    """Another exit code than 2 is no refusal: the child is started until it is ready, with growing pauses."""
    crashes = (
        f"n = len(os.listdir({str(tmp_path)!r}))\nif n < 2:\n    open(f'{tmp_path}/{{n}}', 'x')\n    sys.exit(1)\n"
    )
    stage = Stage(child("a", crashes + READY + UNTIL_TERMINATED))
    await stage.until_ready()

    assert [line.partition(" ended ")[2] for line in stage.said] == [
        "with exit code 1; starting it again in 0.2 s",
        "with exit code 1; starting it again in 0.4 s",
    ]
    stage.supervisor.stop()
    await stage.end()


@pytest.mark.process
async def test_stopping_twice_kills() -> None:
    """A child that ignores SIGTERM is killed at once when asked a second time."""
    stage = Stage(child("deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)\n"))
    await stage.until_ready()

    stage.supervisor.stop()
    stage.supervisor.stop()
    await stage.end()
    process = stage.children[0].process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="uses a Linux signal")
async def test_children_die_with_a_killed_supervisor() -> None:
    """When the supervisor itself is killed with SIGKILL, its children are too."""
    program = f"""
import asyncio, sys
from mishards.cli.supervisor import Child, Supervisor
from mishards.clock import SystemClock
child = Child("a", {child("a", READY + UNTIL_TERMINATED).command!r})
asyncio.run(Supervisor([child], SystemClock(), print).run(lambda: print(child.pid, flush=True)))
"""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert supervisor.stdout is not None
    async with asyncio.timeout(WAIT_S):
        pid = int(await supervisor.stdout.readline())
        gone = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(gone, ended.set)
        supervisor.kill()
        await supervisor.wait()
        await ended.wait()
    asyncio.get_running_loop().remove_reader(gone)
    os.close(gone)
