"""Compactions that somebody asked for: few segments, deletes applied, and told when done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from building import SETTINGS, Shop, open_shop, segments, settle
from msgspec.structs import replace

from mishards.metadata.compactions import Compaction, find, record, wanted
from mishards.model import CollectionId, FileKind, Version

ROOMY = replace(SETTINGS, merge_files=8, tombstones_max=1000, dead_share=1.0)  # by itself a builder does nothing
LOOK_S = 3.0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as shop:
        yield shop


async def ask(shop: Shop, id: int = 1) -> Compaction:
    manifest = shop.mirror.get(shop.collection.id)
    assert manifest is not None
    compaction = Compaction(id, shop.collection.id, manifest.version, manifest.ts)
    await record(shop.store, compaction)
    return compaction


async def work(shop: Shop, name: str = "b1") -> None:
    """Rounds of a builder until nothing is left to do and that is on record."""
    builder = shop.builder(name, settings=ROOMY)
    done = 1
    while done:
        shop.clock.advance(LOOK_S)
        done = await builder.step()


async def done(shop: Shop, id: int = 1) -> bool:
    compaction = await find(shop.store, id)
    assert compaction is not None
    return bool(compaction.done)


async def test_few_segments(shop: Shop) -> None:
    """What was written before becomes one segment a partition, which tells what it was made of, deletes applied."""
    await segments(shop, 3, replaces=False)
    await shop.write({100: 1, 101: 2}, partition=2)
    await shop.seal()
    await shop.write({}, deletes=[3, 100])
    before = {file.segment_id for file in await shop.live(FileKind.SEGMENT)}
    await work(shop)
    assert {file.segment_id for file in await shop.live(FileKind.SEGMENT)} == before

    compaction = await ask(shop)
    await work(shop)

    assert await done(shop)
    live = await shop.live(FileKind.SEGMENT)
    assert sorted((file.partition_id, file.rows, file.dead) for file in live) == [(1, 29, 0), (2, 2, 1)]
    merged = next(file for file in live if file.partition_id == 1)
    assert len(merged.sources) == 3
    assert set(merged.sources) <= before
    assert merged.made >= compaction.version
    assert await shop.live(FileKind.TOMBSTONES) == []
    await shop.check()


async def test_what_comes_later_is_left_alone(shop: Shop) -> None:
    """Rows and deletes of after the wish do not keep it from being done."""
    await segments(shop, 2, replaces=False)
    await ask(shop)
    await shop.write({100: 1}, replaces=False)
    await shop.seal()
    await shop.write({}, deletes=[100])

    await work(shop)

    assert await done(shop)
    assert sorted(file.rows for file in await shop.live(FileKind.SEGMENT)) == [1, 20]
    assert len(await shop.live(FileKind.TOMBSTONES)) == 1
    await shop.check()


async def test_segments_that_do_not_fit_together(shop: Shop) -> None:
    """A segment does not outgrow the target: when no two fit together it is done."""
    await segments(shop, 3, replaces=False)
    small = replace(ROOMY, segment_bytes=max(file.bytes for file in await shop.live(FileKind.SEGMENT)) + 1)
    await ask(shop)

    builder = shop.builder(settings=small)
    shop.clock.advance(LOOK_S)
    assert await builder.step() == 0

    assert await done(shop)
    assert len(await shop.live(FileKind.SEGMENT)) == 3


async def test_a_crash_loses_no_wish(shop: Shop) -> None:
    """Any builder goes on with it; a dropped collection ends it; several say so without harm (I19)."""
    await segments(shop, 2, replaces=False)
    await ask(shop)
    await record(shop.store, Compaction(2, CollectionId(99), Version(5), 7))
    assert [each.id for each in await wanted(shop.store)] == [1, 2]

    await work(shop, "b2")
    await work(shop, "b3")

    assert await done(shop, 1)
    assert await done(shop, 2)
    assert await wanted(shop.store) == []
    assert await find(shop.store, 3) is None


async def test_nothing_to_do(shop: Shop) -> None:
    """The wish of an empty collection is done at once."""
    await ask(shop)
    await settle(shop)
    await work(shop)
    assert await done(shop)
