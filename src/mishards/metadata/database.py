"""What differs between SQLite, MySQL or MariaDB, and PostgreSQL: drivers, sessions, the clock, and what errors mean.

A server that says nothing for SILENT_S counts as lost: a driver gives its connection up then, so that neither a stopped
server nor a network that swallows packets holds a thread for long. A session that stops in the middle of a transaction,
as that of a paused process does, is ended by the server after a while, and its locks with it.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, BigInteger, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mishards.errors import SetupError

T = TypeVar("T")

BUSY_S = 5.0  # an SQLite transaction waits that long for another process' one
SILENT_S = 2  # of a server, while an answer is awaited
LOCK_S = 1  # a statement waits that long for a row that another transaction holds; then its transaction runs again
IDLE_S = 3  # inside a transaction, before the server ends the session
MYSQL_IDLE_S = 30  # MySQL, unlike MariaDB, cannot tell a transaction from a connection that waits in the pool
BATCH = 500  # values of one IN clause; SQLite's oldest limit is 999 variables
DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}
EXTRAS = {"mysql+pymysql": "mysql", "mariadb+pymysql": "mysql", "postgresql+psycopg": "postgresql"}  # of this package

# Error codes: numbers of MySQL and MariaDB, SQLSTATEs of PostgreSQL.
COLLISIONS = frozenset({1020, 1205, 1213, "40001", "40P01", "55P03"})  # with another transaction: this one is undone
UNREACHABLE = 2003  # MySQL's, and PyMySQL's
DEMOTIONS = frozenset({1290, 1792, 1836, "25006"})  # the server has become a read-only replica: look for the primary


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


def make_engine(url: URL, writing: bool, threads: int, silent_s: int = SILENT_S, lock_s: int = LOCK_S) -> Engine:
    """A reading transaction sees one snapshot; a writing one locks rows before it decides on them. SetupError."""
    try:
        return _make_engine(url, writing, threads, silent_s, lock_s)
    except ModuleNotFoundError as error:
        where, extra = url.render_as_string(hide_password=True), EXTRAS.get(url.drivername)
        hint = f": pip install 'mishards[{extra}]'" if extra else ", which is not installed"
        raise SetupError(f"metadata URL {where} needs the driver {error.name}{hint}") from error
    except SQLAlchemyError as error:
        where = url.render_as_string(hide_password=True)
        raise SetupError(f"metadata URL {where} cannot be used: {first_line(error)}") from error


def _make_engine(url: URL, writing: bool, threads: int, silent_s: int, lock_s: int) -> Engine:
    options: dict[str, Any] = {"pool_size": threads, "max_overflow": 0, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_S}, **options)
        begin = "BEGIN IMMEDIATE" if writing else "BEGIN"
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    options["isolation_level"] = "READ COMMITTED" if writing else "REPEATABLE READ"
    if url.drivername.endswith("+pymysql"):
        patience = {"connect_timeout": SILENT_S, "read_timeout": silent_s, "write_timeout": silent_s}
        engine = create_engine(url, connect_args={**patience, "binary_prefix": True}, **options)
        event.listen(engine, "do_connect", _pymysql_connect)
    elif url.drivername == "postgresql+psycopg":
        engine = create_engine(url, connect_args={"connect_timeout": SILENT_S}, use_native_hstore=False, **options)
        event.listen(engine, "do_connect", _psycopg_connect(silent_s))
    else:
        engine = create_engine(url, **options)
    prepare = _prepare_postgresql if url.get_backend_name() == "postgresql" else _prepare_mysql
    idle_s = max(IDLE_S, silent_s)  # the patience is mutual
    event.listen(engine, "connect", lambda connection, record: prepare(connection, lock_s, idle_s))
    event.listen(engine, "handle_error", _give_up_demoted)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where the driver guesses
    connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    connection.execute("PRAGMA synchronous=FULL")  # a commit is on the disk before it is acknowledged
    connection.execute("PRAGMA case_sensitive_like=ON")


def _prepare_postgresql(connection: Any, lock_s: int, idle_s: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{lock_s}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{idle_s}s'")
    connection.commit()


def _prepare_mysql(connection: Any, lock_s: int, idle_s: int) -> None:
    """What must not depend on how the server is configured. The clock would jump with daylight saving time."""
    mariadb = "MariaDB" in connection.get_server_info()
    idle = f"idle_transaction_timeout = {idle_s}" if mariadb else f"wait_timeout = {max(idle_s, MYSQL_IDLE_S)}"
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
            f"default_storage_engine = InnoDB, innodb_lock_wait_timeout = {lock_s}, {idle}"
        )


def _pymysql_connect(dialect: Dialect, record: object, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """How SQLAlchemy connects; None: as it does by itself. PyMySQL prepares TLS, 20 ms of work, before it tries whether
    anybody listens: in an outage for nothing, every second in each process."""
    host, port = options.get("host"), options.get("port", 3306)
    if not host or "bind_address" in options or "unix_socket" in options:
        return None
    try:
        opened = socket.create_connection((host, port), options["connect_timeout"])
    except OSError as error:
        refused: type[Exception] = dialect.loaded_dbapi.OperationalError
        raise refused(UNREACHABLE, f"Can't connect to MySQL server on {host!r} ({error})") from error
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection = dialect.connect(*arguments, **options, defer_connect=True)
    connection.connect(opened)
    return connection


def _psycopg_connect(silent_s: int) -> Any:
    """How SQLAlchemy connects: psycopg has no time-out for answers, so its connections count the silence themselves."""
    import psycopg
    from psycopg.waiting import READY_NONE

    def unless_silent(connection: Any, work: Any) -> Any:
        """Drive `work`, which waits for the socket; it is told of each `interval` without news."""
        ready = None
        while True:
            try:
                wanted = work.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield wanted
            if ready == READY_NONE:
                connection.pgconn.finish()
                raise psycopg.OperationalError(f"no answer for {silent_s} s")

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
            return super().wait(unless_silent(self, gen), interval=silent_s)

    def connect(dialect: object, record: object, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        return Connection.connect(*arguments, **options)

    return connect


def _give_up_demoted(context: ExceptionContext) -> None:
    """A connection to a server that writes no more is as good as lost."""
    if _code(context.original_exception) in DEMOTIONS:
        context.is_disconnect = True


def collided(error: DBAPIError) -> bool:
    """Whether the transaction was undone because of another one, and may succeed when it runs again."""
    return _code(error.orig) in COLLISIONS


def _code(error: BaseException | None) -> object:
    first = next(iter(getattr(error, "args", ())), None)
    return first if isinstance(first, int) else getattr(error, "sqlstate", None)


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in runs that fit one IN clause."""
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


def first_line(error: object) -> str:
    """SQLAlchemy's errors go on with the statement and a link."""
    return str(error).partition("\n")[0]
