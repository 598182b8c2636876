"""Opening the metadata service in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing

from mishards.clock import SystemClock
from mishards.metadata.store import open_store


def take_one(url: str, ids: multiprocessing.Queue[int]) -> None:
    async def take() -> int:
        store = open_store(url, SystemClock())
        await store.open()
        id = await store.take_ids(1)
        await store.close()
        return id

    ids.put(asyncio.run(take()))
