"""The one metadata service of a simulated world, its clock virtual: most runs have a plain one, some a real database.

The real one is the SQL store on SQLite, in memory of the machine. It is opened once in an OS process and emptied for
each run: migrating and compiling statements take longer than a run.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

from mishards.clock import FakeClock
from mishards.metadata.store import open_store
from mishards.model import CollectionId, Version
from mishards.ports import MetadataStore
from mishards.testing.sim.clocks import EPOCH_MS
from mishards.testing.sim.plain_store import PlainStore
from mishards.testing.sim.plain_tables import FIRST_ID, Tables

StoreName = Literal["plain", "sqlite"]
SQLITE_EVERY = 19  # seeds; prime, so that it meets all that happens in one of so many seeds

MEMORY = Path("/dev/shm")
JULIAN_EPOCH = 2440587.5
DAY_MS = 86_400_000
STATES_MAX = 20
KEPT = ("alembic_version",)


class Database(Protocol):
    """A store, and what checks know of it without asking it."""

    @property
    def store(self) -> MetadataStore: ...

    def nonces(self) -> dict[str, str]:
        """Of all leases, in force or not, by name."""
        ...

    def pinned(self) -> list[tuple[CollectionId, Version]]:
        """The versions that are pinned."""
        ...


class PlainDatabase:
    """Nothing but values. It can fall back to an earlier state, as a replica that was behind takes over."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.store = PlainStore(now_ms)
        self._states: deque[Tables] = deque(maxlen=STATES_MAX)

    def keep_state(self) -> None:
        self._states.append(self.store.tables.copy())

    def fall_back(self, random: Random) -> Tables | None:
        """To one of the last states, which is now; None if there is none."""
        if not self._states:
            return None
        self.store.tables = random.choice(self._states)
        self._states.clear()
        return self.store.tables

    def nonces(self) -> dict[str, str]:
        return {name: held.nonce for name, held in self.store.tables.leases.items()}

    def pinned(self) -> list[tuple[CollectionId, Version]]:
        return [(kept.pin.collection_id, kept.pin.version) for kept in self.store.tables.pins.values()]


class SqlDatabase:
    """An SQLite file. Nothing here is thread-safe; threads are not used."""

    def __init__(self, file: Path) -> None:
        self.store: Any = None
        self._now_ms: Callable[[], int] = lambda: EPOCH_MS
        self._file = file
        self._own: sqlite3.Connection | None = None

    async def open(self, now_ms: Callable[[], int]) -> None:
        """Empty, at the time that `now_ms` says."""
        self._now_ms = now_ms
        if self.store is None:
            self.store = open_store(f"sqlite:///{self._file}", FakeClock())
            await self.store.open()
            self._use_our_clock()
            self._own = sqlite3.connect(self._file)
        assert self._own is not None
        for (table,) in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
            if table not in KEPT:
                self._own.execute(f"DELETE FROM {table}")
        self._own.execute("INSERT INTO counters VALUES ('ids', ?)", [FIRST_ID])
        self._own.commit()

    def nonces(self) -> dict[str, str]:
        return dict(self._rows("SELECT name, nonce FROM leases"))

    def pinned(self) -> list[tuple[CollectionId, Version]]:
        return self._rows("SELECT collection_id, version FROM pins")

    def _rows(self, statement: str) -> list[Any]:
        assert self._own is not None
        return self._own.execute(statement).fetchall()

    def _use_our_clock(self) -> None:
        """Both lanes keep one connection each, as nothing runs at the same time."""
        for lane in (self.store._reads, self.store._writes):
            connection = lane.engine.raw_connection()
            connection.driver_connection.create_function("julianday", 1, self._julian_day)
            connection.driver_connection.execute("PRAGMA synchronous=OFF")
            connection.close()

    def _julian_day(self, text: str) -> float:
        return JULIAN_EPOCH + self._now_ms() / DAY_MS


class Workplace:
    """What an OS process keeps from run to run: a folder, and the SQL database in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sqlite = SqlDatabase(folder / "metadata.db")

    async def open_database(self, store: StoreName, now_ms: Callable[[], int]) -> Database:
        """An empty one."""
        if store == "plain":
            return PlainDatabase(now_ms)
        await self._sqlite.open(now_ms)
        return self._sqlite

    def empty_folder(self) -> Path:
        """For the files of one run."""
        folder = self._folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


_workplace: Workplace | None = None


def the_workplace() -> Workplace:
    """This OS process' one."""
    global _workplace
    if _workplace is None:
        _workplace = Workplace(Path(tempfile.mkdtemp(prefix="mishards-sim-", dir=in_memory())))
        atexit.register(_workplace.close)
    return _workplace


def keep_in(folder: str) -> None:
    """Before anything else: its files lie below this folder, which is somebody else's to delete."""
    global _workplace
    _workplace = Workplace(Path(tempfile.mkdtemp(dir=folder)))


def in_memory() -> Path | None:
    """Where files cost no disk; None: nowhere."""
    return MEMORY if MEMORY.is_dir() else None


def store_of(seed: int) -> StoreName:
    """Which metadata service the run of that seed has."""
    return "plain" if seed % SQLITE_EVERY else "sqlite"
