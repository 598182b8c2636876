"""The builder's threads: a bounded number of computations beside the loop, which a stop abandons."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `threads` computations at once; more wait. Cancelling `run` abandons the computation: it goes on,
    unheard."""

    def __init__(self, threads: int) -> None:
        self._room = asyncio.Semaphore(threads)
        self._threads = _DaemonThreads()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed in a thread of its own."""
        async with self._room:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))


class _DaemonThreads(Executor):
    """A daemon thread for each computation. Python joins the threads of `concurrent.futures` at exit: an index may take
    minutes to build, and an abandoned one harms nobody."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def compute() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=compute, name="builder", daemon=True).start()
        return future
