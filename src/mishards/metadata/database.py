"""Connections to the metadata service: what differs between SQLite, MySQL and PostgreSQL, threads, and failures.

SQLAlchemy is used synchronously in a few private threads: one lane of them reads, one writes. A unit of work is a plain
function of a connection, run in one transaction of its lane.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, BigInteger, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mishards.errors import Kind, MishardsError, SetupError

T = TypeVar("T")

THREADS = 4  # per lane; SQLite has one writer at a time whatever the threads
BUSY_S = 5.0  # an SQLite transaction waits that long for another process' one
CONNECT_S = 5
BATCH = 500  # values of one IN clause; SQLite's oldest limit is 999 variables
DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}


class DatabaseMs(FunctionElement[int]):
    """Milliseconds since the epoch by the database's clock: the only clock that leases and ages compare (P2)."""

    type = BigInteger()
    inherit_cache = True


@compiles(DatabaseMs)
def _sqlite_ms(element: DatabaseMs, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(DatabaseMs, "mysql", "mariadb")
def _mysql_ms(element: DatabaseMs, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"


@compiles(DatabaseMs, "postgresql")
def _postgresql_ms(element: DatabaseMs, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


def parse_url(text: str) -> URL:
    """The URL with the driver that we use for its database; SetupError when it cannot be one of a metadata service."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise SetupError(f"metadata URL {text!r} is none; expected such as sqlite:///path/metadata.db") from error
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise SetupError(f"metadata URL {text!r} names no file; expected such as sqlite:///path/metadata.db")
    return url


def make_folder(url: URL) -> None:
    """The folder of an SQLite file exists afterwards."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"metadata {url.database}: its folder cannot be made: {error.strerror}") from error


def _make_engine(url: URL, writing: bool, threads: int) -> Engine:
    """A reading transaction sees one snapshot; a writing one locks rows before it decides on them."""
    options: dict[str, Any] = {"pool_size": threads, "max_overflow": 0, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_S}, **options)
        begin = "BEGIN IMMEDIATE" if writing else "BEGIN"
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    isolation = "READ COMMITTED" if writing else "REPEATABLE READ"
    return create_engine(url, isolation_level=isolation, connect_args={"connect_timeout": CONNECT_S}, **options)


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where the driver guesses
    connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    connection.execute("PRAGMA synchronous=FULL")  # a commit is on the disk before it is acknowledged
    connection.execute("PRAGMA case_sensitive_like=ON")


class Lane:
    """Connections for one use, reading or writing, and the threads that use them."""

    def __init__(self, url: URL, writing: bool) -> None:
        self._where = url.render_as_string(hide_password=True)
        threads = 1 if writing and url.get_backend_name() == "sqlite" else THREADS
        try:
            self.engine = _make_engine(url, writing, threads)
        except (ModuleNotFoundError, SQLAlchemyError) as error:
            raise SetupError(f"metadata URL {self._where} cannot be used: {first_line(error)}") from error
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="metadata")
        self._closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in one transaction. If it loses the race for a unique key it runs a second time: then
        it sees what the winner wrote. A transaction that has begun ends, even if its caller is cancelled."""
        return await self.call(partial(self._transact, work))

    async def call(self, job: Callable[[], T]) -> T:
        """The result of a job that makes its own transactions."""
        if self._closed:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, f"metadata service {self._where} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._translate, job)

    async def close(self) -> None:
        """Waits for the transactions in flight, then disconnects."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self.engine.dispose()

    def _transact(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.engine.begin() as connection:
                return work(connection)
        except IntegrityError:
            with self.engine.begin() as connection:
                return work(connection)

    def _translate(self, job: Callable[[], T]) -> T:
        try:
            return job()
        except (OperationalError, InterfaceError) as error:
            message = f"metadata service {self._where} does not answer: {first_line(error.orig)}"
            raise MishardsError(Kind.METADATA_UNAVAILABLE, message) from error
        except SQLAlchemyError as error:
            raise MishardsError(Kind.INTERNAL, f"metadata service {self._where}: {first_line(error)}") from error


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in runs that fit one IN clause."""
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


def first_line(error: object) -> str:
    """SQLAlchemy's errors go on with the statement and a link."""
    return str(error).partition("\n")[0]
