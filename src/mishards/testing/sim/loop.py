"""An event loop without a machine below it: virtual time, threads that are callbacks, sockets of a simulated network.

Every callback belongs to a process (by the context variable `PROCESS`) or to the world outside. A paused process' ones
are kept until it goes on, a dead one's are never run: no `finally` of it says goodbye, as after `kill -9`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from enum import Enum
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 1_000.0
TURNS_AT_ONCE_MAX = 50_000  # without time passing: something spins
TURNS_MAX = 3_000_000  # of one run
THREAD_BUSY_SHARE = 0.2  # of the jobs given to threads take a while; the others end with the next turn
THREAD_S = 0.01


class State(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class Process:
    """One process of the cluster: what its callbacks are known by."""

    def __init__(self, name: str, loop: SimLoop) -> None:
        self.name = name
        self.state = State.RUNNING
        self.skew_ms = 0  # of its wall clock
        self._loop = loop
        self._kept: list[Callback] = []
        self._went_on_s = 0.0  # after its last pause
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def pause(self) -> None:
        self.state = State.PAUSED

    def ran_since(self, time_s: float) -> bool:
        """Whether it has not been paused since then."""
        return self.state is State.RUNNING and self._went_on_s < time_s

    def go_on(self) -> None:
        self.state = State.RUNNING
        self._went_on_s = self._loop.time()
        self._loop.put_back(self._kept)
        self._kept = []

    def kill(self) -> None:
        self.state = State.DEAD

    def keep(self, callback: Callback) -> None:
        """Of a dead process too: nothing of it is freed, and so runs any `finally`, before the end of the world."""
        self._kept.append(callback)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
WORLD = contextvars.Context()  # of what happens outside of all processes


class SpinningError(Exception):
    """The loop turns and turns."""


class Callback:
    """What `asyncio.TimerHandle` is, with the process that it belongs to."""

    __slots__ = ("arguments", "callback", "context", "process")

    def __init__(self, callback: Any, arguments: tuple[Any, ...], context: contextvars.Context | None) -> None:
        self.callback = callback  # None: it is cancelled
        self.arguments = arguments
        self.context = contextvars.copy_context() if context is None else context
        self.process = self.context.get(PROCESS)

    def cancel(self) -> None:
        self.callback, self.arguments = None, ()


class Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address. `number` is set before `__init__` needs the hash."""

    number: int
    _log_destroy_pending: bool

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.AbstractEventLoop):
    """Runs one coroutine to its end, and everything that it sets off."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.network: Any = None  # has `listen` and `connect`
        self.failures: list[str] = []  # exceptions that nobody caught
        self.turns = 0
        self._went_on = 0  # the turn in which time last did
        self._now_s = START_S
        self._ready: list[Callback] = []
        self._timers: list[tuple[float, int, Callback]] = []
        self._number = 0
        self._closed = False

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._turn()
            result: T = task.result()
            return result
        finally:
            asyncio._set_running_loop(None)

    def _turn(self) -> None:
        """Run what is ready; without anything, time goes on to the next timer."""
        self.turns += 1
        if not self._ready:
            self._go_on()
        spun = self.turns - self._went_on
        if spun > TURNS_AT_ONCE_MAX or self.turns > TURNS_MAX:
            raise SpinningError(f"{self.turns} turns, {spun} of them at {self._now_s:.3f} s")
        timers = self._timers
        while timers and timers[0][0] <= self._now_s:
            self._ready.append(heapq.heappop(timers)[2])
        batch, self._ready = self._ready, []
        if len(batch) > 1:
            batch = self._shuffled(batch)
        for each in batch:
            callback, process = each.callback, each.process
            if callback is None:
                continue
            if process is not None and process.state is not State.RUNNING:
                process.keep(each)
                continue
            try:
                each.context.run(callback, *each.arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"exception in {callback}", "exception": error})

    def _go_on(self) -> None:
        """To the time of the next timer."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers:
            raise SpinningError("nothing will ever happen again")
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._went_on = self.turns

    def _shuffled(self, batch: list[Callback]) -> list[Callback]:
        """Processes take their turns in any order; what one process does keeps its own."""
        groups: dict[Process | None, list[Callback]] = {}
        for each in batch:
            groups.setdefault(each.process, []).append(each)
        if len(groups) == 1:
            return batch
        ordered = list(groups.values())
        self.random.shuffle(ordered)
        return [each for group in ordered for each in group]

    def put_back(self, callbacks: list[Callback]) -> None:
        self._ready.extend(callbacks)

    # ------------------------------------------------------------------------------------ asyncio.AbstractEventLoop

    def time(self) -> float:
        return self._now_s

    def call_soon(  # type: ignore[override]
        self, callback: Any, *arguments: Any, context: contextvars.Context | None = None
    ) -> Any:
        soon = Callback(callback, arguments, context)
        self._ready.append(soon)
        return soon

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *arguments: Any, context: contextvars.Context | None = None
    ) -> Any:
        later = Callback(callback, arguments, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, later))
        return later

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *arguments: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self._now_s + delay, callback, *arguments, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        self._number += 1
        task: Task[Any] = Task.__new__(Task)
        task.number = self._number
        asyncio.Task.__init__(task, coro, loop=self, name=name or "task", context=context)
        task._log_destroy_pending = False  # those of dead processes stay as they are
        return task

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """The job is done on the loop: at once for the world, for a process after a moment, even if it is cancelled."""
        if getattr(executor, "_shutdown", False):
            raise RuntimeError("cannot schedule new futures after shutdown")
        outcome = self.create_future()
        if PROCESS.get() is None:
            _do(outcome, func, arguments)
        elif self.random.random() < THREAD_BUSY_SHARE:
            self.call_later(self.random.expovariate(1 / THREAD_S), _do, outcome, func, arguments)
        else:
            self.call_soon(_do, outcome, func, arguments)
        return outcome

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return self.network.listen(protocol_factory)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.network.connect(protocol_factory, port)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(f"{context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True


def _do(outcome: asyncio.Future[T], func: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    try:
        result = func(*arguments)
    except Exception as error:
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(result)
