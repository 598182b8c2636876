"""The processes that build for this one (`worker.py`): started when first needed, ended when idle, killed to cancel.

Why processes: a merge or an index build in a thread takes the interpreter and the cores from searches, and a thread
cannot be stopped nor given a priority of its own. A job that runs out of memory ends its process, not the node.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from mishards.builder.pool import Pool
from mishards.builder.worker import LENGTH_BYTES, frame
from mishards.errors import Kind, MishardsError

IDLE_S = 30.0  # a worker that long without work ends: it holds about 70 MiB
START_S_MAX = 30.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Workers:
    """At most `count` jobs at once, each in a process of its own; more wait. With a count of 0, or where a process
    cannot be started, jobs run in the pool's threads."""

    def __init__(self, count: int, pool: Pool) -> None:
        self._room = asyncio.Semaphore(count) if count else None
        self._pool = pool
        self._idle: list[Worker] = []
        self._ends: dict[Worker, asyncio.TimerHandle] = {}

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """The function's result: a function of a module, all picklable. Cancelling it kills the process at work."""
        if self._room is None:
            return await self._pool.run(function, *args)
        async with self._room:
            worker = await self._take()
            if worker is None:
                return await self._pool.run(function, *args)
            try:
                failure, result = await worker.ask((function, args))
            except BaseException:
                await worker.kill()
                raise
            self._give_back(worker)
        if failure is not None:
            raise MishardsError(Kind[failure], result)
        answer: T = result
        return answer

    async def stop(self) -> None:
        """End the idle ones; those at work end with the tasks that wait for them."""
        for handle in self._ends.values():
            handle.cancel()
        idle, self._idle, self._ends = self._idle, [], {}
        for worker in idle:
            await worker.kill()

    async def _take(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()
            self._ends.pop(worker).cancel()
            if worker.alive:
                return worker
        try:
            return await Worker.start()
        except OSError as error:
            log.warning("no process for building can be started, a thread builds", error=str(error))
            return None

    def _give_back(self, worker: Worker) -> None:
        self._idle.append(worker)
        self._ends[worker] = asyncio.get_running_loop().call_later(IDLE_S, self._end, worker)

    def _end(self, worker: Worker) -> None:
        self._idle.remove(worker)
        del self._ends[worker]
        worker.end()


class Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Worker:
        """OSError if it cannot be started."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "mishards.builder.worker")
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        try:
            async with asyncio.timeout(START_S_MAX):
                await worker._read()
        except MishardsError as error:
            raise OSError(error.message) from error
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, job: tuple[Callable[..., Any], tuple[Any, ...]]) -> tuple[str | None, Any]:
        """What became of the job. INTERNAL if the process ended over it."""
        assert self._process.stdin is not None
        self._process.stdin.write(frame(job))
        with suppress(ConnectionError):  # then there is no answer either
            await self._process.stdin.drain()
        answer: tuple[str | None, Any] = await self._read()
        return answer

    async def _read(self) -> Any:
        assert self._process.stdout is not None
        try:
            length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES))
            return pickle.loads(await self._process.stdout.readexactly(length))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            status = await self._process.wait()
            raise MishardsError(Kind.INTERNAL, f"the process that builds ended with status {status}") from error

    def end(self) -> None:
        """Without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
