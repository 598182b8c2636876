"""Ids in blocks."""

from __future__ import annotations

import asyncio
from typing import cast

from mishards.metadata.ids import IdBlocks
from mishards.ports import MetadataStore


class CountingStore:
    """A counter as the metadata service has it; remembers the blocks asked for."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    async def take_ids(self, count: int) -> int:
        first = 1_000 + sum(self.blocks)
        self.blocks.append(count)
        await asyncio.sleep(0)
        return first


async def test_one_block_serves_many_calls() -> None:
    """Calls at the same moment get ids that differ, out of as few blocks as they fit in."""
    store = CountingStore()
    ids = IdBlocks(cast(MetadataStore, store), block=100)

    firsts = await asyncio.gather(*(ids.take(10) for _ in range(20)))

    assert len({first + i for first in firsts for i in range(10)}) == 200
    assert store.blocks == [100, 100]


async def test_ids_of_one_call_are_consecutive() -> None:
    """A call that does not fit what is left, or is larger than a block, gets a block of its own size at least."""
    store = CountingStore()
    ids = IdBlocks(cast(MetadataStore, store), block=100)

    assert await ids.take(90) == 1_000
    assert await ids.take(20) == 1_100
    assert await ids.take(250) == 1_200
    assert store.blocks == [100, 100, 250]
