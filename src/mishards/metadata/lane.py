"""Units of work on threads: each is a plain function of a connection, run in one transaction (P3, P14).

SQLAlchemy is used synchronously in a few private threads: one lane of them reads, one writes.

What goes wrong is repeated where that is safe. A transaction that collided with another one was undone by the database
and runs again. A connection that turns out to be broken before COMMIT was sent has changed nothing, so its unit of work
runs again on a fresh one: a server that was restarted, or that dropped idle connections, is not noticed. What is left
is METADATA_UNAVAILABLE: the service does not answer, or the answer to COMMIT is lost and nobody knows the outcome.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, cast

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.database import BUSY_S, SILENT_S, collided, first_line, make_engine
from mishards.ports import UNDONE

T = TypeVar("T")

THREADS = 4  # per lane; SQLite has one writer at a time whatever the threads
RERUNS_MAX = 6  # of a transaction that collides again and again
RERUN_PAUSE_S = 0.01  # before the first one; doubled for each further one, and spread by chance


class Lane:
    """Connections for one use, reading or writing, and the threads that use them."""

    def __init__(self, url: URL, writing: bool, clock: Clock, threads: int = THREADS, silent_s: int = SILENT_S) -> None:
        """`silent_s`: a server that says nothing for so long is given up."""
        embedded = url.get_backend_name() == "sqlite"
        threads = 1 if writing and embedded else threads
        self.engine = make_engine(url, writing, threads, silent_s)
        self._where = url.render_as_string(hide_password=True)
        self._writing = writing
        self._clock = clock
        self._silent_s = silent_s
        self._queue_s = 2 * BUSY_S if embedded else silent_s  # that a unit of work waits for a thread
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="metadata")
        self._closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in one transaction. It may run several times, of which at most one counts. If it loses
        the race for a unique key it runs a second time: then it sees what the winner wrote. A transaction that has
        begun ends, even if its caller is cancelled. METADATA_UNAVAILABLE: nothing happened if its detail is UNDONE."""
        with self._translated():
            for number in range(RERUNS_MAX):
                try:
                    return await self._in_thread(partial(self._transact, work))
                except _UndoneError as undone:
                    if not collided(undone.cause):
                        raise
                await asyncio.sleep(RERUN_PAUSE_S * 2**number * (0.5 + self._clock.random()))
            return await self._in_thread(partial(self._transact, work))

    async def call(self, job: Callable[[], T]) -> T:
        """The result of a job that makes its own transactions."""
        with self._translated():
            return await self._in_thread(job)

    async def close(self) -> None:
        """Waits for the transactions in flight, then disconnects."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self.engine.dispose()

    async def _in_thread(self, job: Callable[[], T]) -> T:
        if self._closed:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, f"metadata service {self._where} is closed")
        ticket = threading.Lock()  # whoever takes it decides whether the job runs

        def begin() -> T | None:
            return job() if ticket.acquire(blocking=False) else None

        running = asyncio.get_running_loop().run_in_executor(self._threads, begin)
        try:
            await asyncio.wait({running}, timeout=self._queue_s)
            if not running.done() and ticket.acquire(blocking=False):
                message = f"metadata service {self._where}: no connection was free for {self._queue_s:g} s"
                raise MishardsError(Kind.METADATA_UNAVAILABLE, message, detail=UNDONE)
            return cast("T", await running)
        finally:
            running.cancel()  # a job that has not begun never will

    def _transact(self, work: Callable[[Connection], T]) -> T:
        began_s = self._clock.monotonic_s()
        try:
            return self._attempt(work)
        except _UndoneError as undone:
            broken = undone.cause.connection_invalidated
            hangs = self._clock.monotonic_s() - began_s >= self._silent_s  # to wait once more helps nobody
            stale = undone.connected and broken and not hangs  # a connection of the pool: a fresh one may do
            if not isinstance(undone.cause, IntegrityError) and not stale:
                raise
        return self._attempt(work)

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        """_UndoneError: the transaction did not happen. Any other error: nobody knows."""
        connected = committing = False
        try:
            with self.engine.begin() as connection:
                connected = True
                result = work(connection)
                committing = self._writing
            return result
        except DBAPIError as error:
            if committing and not collided(error):
                raise
            raise _UndoneError(error, connected) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _UndoneError as undone:
            raise self._failure(undone.cause, UNDONE) from undone.cause
        except SQLAlchemyError as error:
            raise self._failure(error, "") from error

    def _failure(self, error: SQLAlchemyError, detail: str) -> MishardsError:
        broken = isinstance(error, DBAPIError) and error.connection_invalidated
        if broken or isinstance(error, OperationalError | InterfaceError):
            message = f"metadata service {self._where} does not answer: {first_line(getattr(error, 'orig', error))}"
            return MishardsError(Kind.METADATA_UNAVAILABLE, message, detail)
        return MishardsError(Kind.INTERNAL, f"metadata service {self._where}: {first_line(error)}")


class _UndoneError(Exception):
    """A transaction that surely did not happen."""

    def __init__(self, cause: DBAPIError, connected: bool) -> None:
        """`connected`: the server was reached, once."""
        super().__init__(str(cause))
        self.cause = cause
        self.connected = connected
