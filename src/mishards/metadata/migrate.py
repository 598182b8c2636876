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
from sqlalchemy import Connection, Engine, text

from mishards.errors import SetupError

WAIT_S = 60

# How each database lets one session in at a time. SQLite has no entry: its transactions begin as the only writer.
SESSION_LOCKS = {
    "mysql": (f"SELECT GET_LOCK('mishards', {WAIT_S})", "SELECT RELEASE_LOCK('mishards')"),
    "mariadb": (f"SELECT GET_LOCK('mishards', {WAIT_S})", "SELECT RELEASE_LOCK('mishards')"),
    "postgresql": ("SELECT pg_advisory_lock(4719530)", "SELECT pg_advisory_unlock(4719530)"),
}

_alembic = threading.Lock()  # Alembic keeps the migration at work in module globals: one at a time in a process


def upgrade(engine: Engine) -> None:
    """The database is at this program's schema. SetupError if a newer program has changed it already."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _alembic, engine.connect() as connection, _alone(connection):
        _refuse_newer(connection, ScriptDirectory.from_config(config))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """No other session migrates meanwhile; what the block did is committed."""
    take, free = SESSION_LOCKS.get(connection.dialect.name, ("", ""))
    if take:
        connection.execute(text(take))
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        if free:
            connection.execute(text(free))


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            where = connection.engine.url.render_as_string(hide_password=True)
            raise SetupError(
                f"metadata {where} has schema revision {found}, this program knows up to {scripts.get_current_head()}: "
                "run a newer version"
            )
