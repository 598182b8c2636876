"""Fresh ids: one counter in the metadata service, and blocks of it in each process.

The counter is at the hybrid timestamp of the database's clock, or ahead of it; nobody takes as many ids as that grows
(2**18 a millisecond). So ids differ even from those that a database gave away and has forgotten: one that lost its last
transactions in a fail-over, or one that was deleted and made again.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection, insert, select, update

from mishards.clock import hybrid
from mishards.metadata.database import DatabaseMs
from mishards.metadata.tables import counters
from mishards.ports import MetadataStore

COUNTER = "ids"


def start_counter(connection: Connection) -> None:
    """The counter exists afterwards. Idempotent."""
    if connection.scalar(select(counters.c.next).where(counters.c.name == COUNTER)) is None:
        connection.execute(insert(counters).values(name=COUNTER, next=1))


def take_ids(connection: Connection, count: int) -> int:
    """The first of `count` consecutive ids that nobody else gets."""
    row = counters.c.name == COUNTER
    wanted = select(counters.c.next, DatabaseMs().label("now_ms")).where(row).with_for_update()
    counter = connection.execute(wanted).one()
    first: int = max(counter.next, hybrid(counter.now_ms))
    connection.execute(update(counters).where(row).values(next=first + count))
    return first


class IdBlocks:
    """Ids without a transaction for each: blocks are taken ahead. What is left of a block at a stop is never used."""

    def __init__(self, store: MetadataStore, block: int = 10_000) -> None:
        self._store = store
        self._block = block
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def take(self, count: int) -> int:
        """The first of `count` consecutive ids. METADATA_UNAVAILABLE only when a new block is needed."""
        async with self._lock:
            if self._end - self._next < count:
                size = max(self._block, count)
                self._next = await self._store.take_ids(size)
                self._end = self._next + size
            first = self._next
            self._next += count
            return first
