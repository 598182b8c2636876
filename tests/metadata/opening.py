"""What is true of opening any database: it is migrated once, to exactly what the program declares."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from mishards.clock import SystemClock
from mishards.metadata.database import parse_url
from mishards.metadata.store import open_store
from mishards.metadata.tables import metadata

PROCESSES = 3


def differences(url: str) -> list[Any]:
    """Tables, columns and indexes of the database that are not as `tables.py` declares them."""
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    return found


def open_at_once(url: str) -> set[int]:
    """Fresh ids, one taken by each of several processes that open the database at the same moment."""
    spawn = multiprocessing.get_context("spawn")
    ids: multiprocessing.Queue[int] = spawn.Queue()
    processes = [spawn.Process(target=_take_one, args=(url, ids)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    taken = {ids.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    return taken


def _take_one(url: str, ids: multiprocessing.Queue[int]) -> None:
    async def take() -> int:
        store = open_store(url, SystemClock())
        await store.open()
        id = await store.take_ids(1)
        await store.close()
        return id

    ids.put(asyncio.run(take()))
