"""Bringing a database to this program's schema with Alembic; safe when several nodes start at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, text

from mishards.errors import SetupError
from mishards.metadata.database import make_engine

SILENT_S = 60  # a table may take its time to change
WAIT_S = SILENT_S - 10  # for another node that migrates

# How each database lets one session in at a time. SQLite has no entry: its transactions begin as the only writer.
SESSION_LOCKS = {
    "mysql": (f"SELECT GET_LOCK('mishards', {WAIT_S})", "SELECT RELEASE_LOCK('mishards')"),
    "mariadb": (f"SELECT GET_LOCK('mishards', {WAIT_S})", "SELECT RELEASE_LOCK('mishards')"),
    "postgresql": ("SELECT 1 FROM pg_advisory_lock(4719530)", "SELECT pg_advisory_unlock(4719530)"),
}

_alembic = threading.Lock()  # Alembic keeps the migration at work in module globals: one at a time in a process


def upgrade(url: URL) -> None:
    """The database is at this program's schema. SetupError if a newer program has changed it already."""
    config = _config()
    with _alembic, _patient(url) as engine, engine.connect() as connection, _alone(connection):
        _refuse_newer(connection, ScriptDirectory.from_config(config))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revisions(url: URL) -> tuple[str, str]:
    """The schema revision of the database, "" when it is empty, and that of this program."""
    with _patient(url) as engine, engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision() or ""
    return found, ScriptDirectory.from_config(_config()).get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextmanager
def _patient(url: URL) -> Iterator[Engine]:
    engine = make_engine(url, writing=True, threads=1, silent_s=SILENT_S, lock_s=WAIT_S)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """No other session migrates meanwhile; what the block did is committed."""
    take, free = SESSION_LOCKS.get(connection.dialect.name, ("", ""))
    if take and connection.scalar(text(take)) != 1:
        raise SetupError(f"metadata {_where(connection)} is being migrated by another node for more than {WAIT_S} s")
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        if free:
            connection.execute(text(free))


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    newest = scripts.get_current_head()
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            raise SetupError(
                f"metadata {_where(connection)} has schema revision {found}, this program knows up to {newest}: "
                "run a newer version"
            )


def _where(connection: Connection) -> str:
    return connection.engine.url.render_as_string(hide_password=True)
