"""The builder's threads: a bounded number of computations beside the loop, which a stop abandons."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `threads` computations at once; more wait.

    The threads are daemons and not those of `concurrent.futures`, which Python joins at exit: an index may take minutes
    to build, and an abandoned one harms nobody. Cancelling `run` abandons the computation: it goes on, unheard.
    """

    def __init__(self, threads: int) -> None:
        self._room = asyncio.Semaphore(threads)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed in a thread of its own."""
        async with self._room:
            loop = asyncio.get_running_loop()
            outcome: asyncio.Future[T] = loop.create_future()

            def settle(result: T | None, error: BaseException | None) -> None:
                if outcome.done():  # abandoned
                    return
                if error is not None:
                    outcome.set_exception(error)
                else:
                    outcome.set_result(result)  # type: ignore[arg-type]  # the function's, which may be None

            def compute() -> None:
                result: T | None = None
                failure: BaseException | None = None
                try:
                    result = function(*args, **kwargs)
                except BaseException as error:
                    failure = error
                with suppress(RuntimeError):  # the loop is closed: abandoned
                    loop.call_soon_threadsafe(settle, result, failure)

            threading.Thread(target=compute, name="builder", daemon=True).start()
            return await outcome
