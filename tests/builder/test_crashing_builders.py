"""Builders that crash at any point, several at once: nothing is lost, nothing is done twice (I12, I15)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from building import SETTINGS, Shop, open_shop
from msgspec.structs import replace

from mishards.model import FileId
from mishards.ports import MetadataStore

NAMES = ("b1", "b2", "b3")
AT_ONCE = replace(SETTINGS, garbage_grace_s=0.0, orphan_quarantine_s=0.0)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as shop:
        yield shop


class Crashing:
    """The metadata service as a builder sees it that dies with its n-th call, before that happens or after."""

    def __init__(self, store: MetadataStore, calls: int, after: bool) -> None:
        self._store = store
        self._left = calls
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._after:
                await method(*arguments, **options)
            if self._left <= 0:
                raise asyncio.CancelledError  # nothing follows but what needs no metadata service
            return await method(*arguments, **options)

        return call


async def change(shop: Shop, dice: random.Random) -> None:
    """Something that gives builders work."""
    for _ in range(3):
        keys = dice.sample(range(40), 6)
        await shop.write(dict.fromkeys(keys[:4], dice.randrange(1000)), deletes=keys[4:], partition=dice.choice([1, 2]))
    await shop.seal()


def inputs_of_two(shop: Shop) -> set[FileId]:
    """Files that two announced commits removed."""
    removed = [id for notice in shop.announced if notice.delta for id in notice.delta.removed]
    return {id for id in removed if removed.count(id) > 1}


@pytest.mark.parametrize("seed", range(8))
async def test_crashes(shop: Shop, seed: int) -> None:
    """Whatever the builders do until they die, all versions keep their rows, no file is an input of two commits, and
    those that are started again end with few segments and no garbage."""
    dice = random.Random(seed)
    for _ in range(6):
        await change(shop, dice)
        stores: list[Any] = [Crashing(shop.store, dice.randrange(1, 12), dice.random() < 0.5) for _ in NAMES]
        builders = [shop.builder(name, store, AT_ONCE) for name, store in zip(NAMES, stores, strict=True)]
        await asyncio.gather(*(builder.step() for builder in builders), return_exceptions=True)
        for builder in builders:
            await builder.stop()
        await shop.check()
    assert inputs_of_two(shop) == set()

    for name in NAMES:
        builder = shop.builder(name, settings=AT_ONCE)
        while await builder.step():
            shop.clock.advance(100.0)
    await shop.check()
    segments = [file for file in await shop.live() if file.segment_id]
    assert len(segments) <= 2 * 2 * AT_ONCE.merge_files
    for lease in await shop.store.leases(""):  # of the dead
        await shop.store.release(lease.name, lease.nonce)
    await shop.builder(settings=AT_ONCE).collect()
    referenced = {part.path for file in await shop.live() for part in file.parts if part.path}
    assert set(await shop.storage.list("1/")) == referenced
