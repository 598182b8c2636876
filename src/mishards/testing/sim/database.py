"""The one metadata service of a simulated world: the real store on SQLite, in memory of the machine, its clock virtual.

It is opened once in an OS process and emptied for each run: migrating and compiling statements take longer than a run.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mishards.metadata.store import open_store
from mishards.testing.sim.clocks import EPOCH_MS

MEMORY = Path("/dev/shm")
JULIAN_EPOCH = 2440587.5
DAY_MS = 86_400_000
KEPT = ("alembic_version",)


class Database:
    """The store, and its file. Nothing here is thread-safe; threads are not used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Any = None
        self._now_ms: Callable[[], int] = lambda: EPOCH_MS
        self._file = folder / "metadata.db"
        self._own: sqlite3.Connection | None = None

    async def open(self, clock: Any, now_ms: Callable[[], int]) -> None:
        """Empty, at the time that `now_ms` says."""
        self._now_ms = now_ms
        if self.store is None:
            self.store = open_store(f"sqlite:///{self._file}", clock)
            await self.store.open()
            self._use_our_clock()
            self._own = sqlite3.connect(self._file)
        assert self._own is not None
        tables = [name for (name,) in self._own.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table not in KEPT:
                self._own.execute(f"DELETE FROM {table}")
        self._own.execute("INSERT INTO counters VALUES ('ids', 1000)")
        self._own.commit()

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """What is in the database now, for checks."""
        assert self._own is not None
        return self._own.execute(statement, values).fetchall()

    def _use_our_clock(self) -> None:
        """Both lanes keep one connection each, as nothing runs at the same time."""
        for lane in (self.store._reads, self.store._writes):
            connection = lane.engine.raw_connection()
            connection.driver_connection.create_function("julianday", 1, self._julian_day)
            connection.driver_connection.execute("PRAGMA synchronous=OFF")
            connection.close()

    def _julian_day(self, text: str) -> float:
        return JULIAN_EPOCH + self._now_ms() / DAY_MS

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


_database: Database | None = None


def the_database() -> Database:
    """This OS process' one."""
    global _database
    if _database is None:
        _database = Database(Path(tempfile.mkdtemp(prefix="mishards-sim-", dir=in_memory())))
        atexit.register(_database.close)
    return _database


def keep_in(folder: str) -> None:
    """Before anything else: its files lie below this folder, which is somebody else's to delete."""
    global _database
    _database = Database(Path(tempfile.mkdtemp(dir=folder)))


def in_memory() -> Path | None:
    """Where files cost no disk; None: nowhere."""
    return MEMORY if MEMORY.is_dir() else None
