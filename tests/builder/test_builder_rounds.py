"""Builders at work on real metadata and storage: every layout that they make gives the same rows (I12)."""

from __future__ import annotations

import asyncio
import random

import pytest
from building import INDEX, Shop, segments, settle

from mishards.builder.claims import Claims
from mishards.errors import Kind, MishardsError
from mishards.model import FileKind, NodeId, Partition, PartitionId, Version


async def test_merge(shop: Shop) -> None:
    """Small segments become one, sorted, without the rows that later writes replaced or deleted."""
    await segments(shop, 2)
    await shop.write({5: 2005, 100: 2100}, deletes=[7, 12])
    await shop.seal()

    await settle(shop)

    (segment,) = await shop.live(FileKind.SEGMENT)
    assert (segment.rows, segment.dead, segment.segment_id) == (19, 0, segment.id)
    assert await shop.live(FileKind.TOMBSTONES) == []
    await shop.check()


async def test_merge_keeps_partitions_apart(shop: Shop) -> None:
    """Only segments of one partition are merged, and a key that moved to another partition is found there."""
    for number in range(3):
        await shop.write({number: 10 + number}, partition=1)
        await shop.write({100 + number: 20 + number}, partition=2)
        await shop.write({number: 30 + number}, partition=2)
        await shop.seal()

    await settle(shop)

    assert {segment.partition_id for segment in await shop.live(FileKind.SEGMENT)} == {2}
    await shop.check()


async def test_deletes_of_every_row(shop: Shop) -> None:
    """Segments without a live row go, without a successor."""
    await segments(shop, 3)
    await shop.write({}, deletes=range(30), in_storage=True)

    await settle(shop)

    assert await shop.live() == []
    await shop.check()


async def test_delete_by_filter(shop: Shop) -> None:
    """A tombstone with a bound spares the rows written after the version its filter saw."""
    await segments(shop, 1)
    seen = len(shop.states)
    await shop.write({3: 5003})
    await shop.write({}, deletes=range(9), below=seen)
    await shop.seal()

    await settle(shop)
    await shop.check()

    assert shop.states[-1] == {(1, 3): 5003, (1, 9): 1009}


async def test_materialise(shop: Shop) -> None:
    """Many tombstones go into delete bitmaps: the segments stay the same to those who place and index them."""
    await segments(shop, 2)
    before = await shop.live(FileKind.SEGMENT)
    await shop.write({}, deletes=[1, 13])
    await shop.write({}, deletes=range(200, 209))

    await settle(shop)

    after = await shop.live(FileKind.SEGMENT)
    assert [file.segment_id for file in after] == [file.segment_id for file in before]
    assert [file.dead for file in after] == [1, 1]
    for old, new in zip(before, after, strict=True):
        assert [part for part in new.parts if part.kind != "deletes"] == list(old.parts)
    assert await shop.live(FileKind.TOMBSTONES) == []
    await shop.check()


async def test_materialise_without_a_hit(shop: Shop) -> None:
    """A segment that no tombstone touches only gets a newer horizon."""
    await segments(shop, 1)
    (before,) = await shop.live(FileKind.SEGMENT)
    await shop.write({}, deletes=range(200, 209))

    await settle(shop)

    (after,) = await shop.live(FileKind.SEGMENT)
    assert after.parts == before.parts
    assert after.horizon > before.horizon
    await shop.check()


async def test_materialise_again(shop: Shop) -> None:
    """A second bitmap replaces the first and masks what that did too."""
    await segments(shop, 1)
    await shop.write({}, deletes=[1, *range(200, 209)])
    await settle(shop)
    await shop.write({}, deletes=[2, *range(200, 209)])
    await settle(shop)

    (segment,) = await shop.live(FileKind.SEGMENT)
    assert segment.dead == 2
    assert [part.kind for part in segment.parts].count("deletes") == 1
    await shop.check()


async def test_rewrite(shop: Shop) -> None:
    """A segment with many dead rows is rewritten without them, as a new segment."""
    await segments(shop, 1)
    (before,) = await shop.live(FileKind.SEGMENT)
    await shop.write({}, deletes=[0, 1, 2, *range(200, 209)])

    await settle(shop)

    (after,) = await shop.live(FileKind.SEGMENT)
    assert (after.rows, after.dead, after.part("deletes")) == (7, 0, None)
    assert after.segment_id != before.segment_id
    assert (after.pk_min, after.pk_max) == (3, 9)
    await shop.check()


async def test_tombstones_stay_while_needed(shop: Shop) -> None:
    """While fresh rows are older than a tombstone, it stays (P6)."""
    await shop.write({1: 1, 2: 2})
    await shop.write({}, deletes=[1])

    # the first commit's own tombstones are applied by all, the second's are not
    assert await settle(shop) == 1
    assert [file.added for file in await shop.live(FileKind.TOMBSTONES)] == [2]
    await shop.check()

    await shop.seal()
    assert await settle(shop) == 1
    assert await shop.live(FileKind.TOMBSTONES) == []
    await shop.check()


async def test_index(shop: Shop) -> None:
    """Each segment gets the part of the index that is defined, and the merged one gets its own."""
    await shop.define(indexes=(INDEX,))
    await segments(shop, 1)
    before = {file.segment_id for file in await shop.live(FileKind.SEGMENT)}

    await settle(shop)

    files = await shop.live(FileKind.SEGMENT)
    assert {file.segment_id for file in files} == before
    assert all(file.part("index", INDEX.field_id, INDEX.id) for file in files)
    await shop.check()

    await segments(shop, 3)
    await settle(shop)

    (merged,) = await shop.live(FileKind.SEGMENT)
    assert merged.part("index", INDEX.field_id, INDEX.id)
    await shop.check()


async def test_deletes_while_an_index_is_built(shop: Shop) -> None:
    """An index that took long is attached to the record that a materialisation made meanwhile."""
    await shop.define(indexes=(INDEX,))
    await segments(shop, 1)
    shop.index.gate.clear()
    slow, quick = shop.builder("slow"), shop.builder("quick")

    building = asyncio.create_task(slow.step())
    await asyncio.to_thread(shop.index.building.wait)
    await shop.write({}, deletes=[4, *range(200, 209)])
    shop.index.building.clear()
    (segment,) = await shop.live(FileKind.SEGMENT)
    await shop.define(indexes=())
    while not (segment := (await shop.live(FileKind.SEGMENT))[0]).dead:
        await quick.step()
    await shop.define(indexes=(INDEX,))
    shop.index.gate.set()
    await building

    (after,) = await shop.live(FileKind.SEGMENT)
    assert (after.segment_id, after.dead) == (segment.segment_id, 1)
    assert after.part("index", INDEX.field_id, INDEX.id)
    await shop.check()


async def test_index_dropped_while_it_is_built(shop: Shop) -> None:
    """The part of an index that was dropped meanwhile is not attached, and its upload goes."""
    await shop.define(indexes=(INDEX,))
    await segments(shop, 1)
    before = await shop.storage.list("")
    shop.index.gate.clear()

    building = asyncio.create_task(shop.builder().step())
    await asyncio.to_thread(shop.index.building.wait)
    await shop.define(indexes=())
    shop.index.gate.set()

    assert await building == 1  # the tombstones of the sealed rows
    (segment,) = await shop.live(FileKind.SEGMENT)
    assert not segment.part("index", INDEX.field_id, INDEX.id)
    assert await shop.storage.list("") == before


async def test_dropped_partition(shop: Shop) -> None:
    """The files of a partition that was dropped go; those of another stay."""
    await shop.write({1: 1}, partition=1)
    await shop.write({2: 2}, partition=2)
    await shop.seal()
    await shop.write({3: 3}, partition=2)
    await shop.define(partitions=(Partition(PartitionId(1), "a", 0),))

    await settle(shop)

    left = [file for file in await shop.live() if file.kind is not FileKind.TOMBSTONES]
    assert [file.partition_id for file in left] == [1]


async def test_unknown_partition(shop: Shop) -> None:
    """A file that is there before the mirror knows its partition is not taken for one of a dropped partition."""
    new = Partition(PartitionId(3), "c", 0)
    old = shop.collection
    await shop.define(partitions=(*old.partitions, new))
    await shop.write({1: 1}, partition=3)
    manifest = shop.mirror.get(old.id)
    assert manifest is not None
    manifest.collection = old  # as if the push of the commit had come first

    assert await settle(shop) == 1  # its own tombstones

    assert [file.partition_id for file in await shop.live()] == [3]


@pytest.mark.parametrize("seed", range(4))
async def test_any_history(shop: Shop, seed: int) -> None:
    """Writes, seals and rounds of two builders in any order: each plan finds exactly the rows of its version."""
    chance = random.Random(seed)
    await shop.define(indexes=(INDEX,))
    builders = [shop.builder("b1"), shop.builder("b2")]
    number = 0
    for _ in range(40):
        match chance.choice(["write", "write", "delete", "filter", "seal", "seal", "step", "both"]):
            case "write":
                keys = chance.sample(range(60), chance.randint(1, 12))
                rows = dict(zip(keys, range(number + 1, number + 1 + len(keys)), strict=True))
                number += len(keys)
                await shop.write(
                    rows, chance.sample(range(60), 2), chance.randint(1, 2), in_storage=chance.random() < 0.3
                )
            case "delete":
                await shop.write({}, chance.sample(range(60), chance.randint(1, 8)))
            case "filter":
                await shop.write({}, chance.sample(range(60), 6), below=chance.randint(1, len(shop.states)))
            case "seal":
                await shop.seal()
            case "step":
                await builders[0].step()
            case "both":
                await asyncio.gather(*(builder.step() for builder in builders))
        shop.clock.advance(60.0)
    await shop.check()

    await shop.seal()
    await settle(shop)
    await shop.check()
    chain = await shop.store.commits(shop.collection.id, Version(0))
    assert {commit.kind for commit in chain} == {"write", "layout"}


async def test_two_builders(shop: Shop) -> None:
    """Two builders that want the same at once do it once."""
    await segments(shop, 3)

    await asyncio.gather(shop.builder("b1").step(), shop.builder("b2").step())

    assert len(await shop.live(FileKind.SEGMENT)) == 1
    await shop.check()


async def test_claimed_by_another(shop: Shop) -> None:
    """What another node has claimed is left to it."""
    await segments(shop, 3)
    await shop.store.acquire("task/1/0/merge/1.3", NodeId("rival"), "nonce", 60.0)
    await shop.store.acquire("task/1/0/drop/all", NodeId("rival"), "nonce", 60.0)

    assert await shop.builder().step() == 0
    assert len(await shop.live(FileKind.SEGMENT)) == 3


async def test_tombstones_wait_for_a_merge_elsewhere(shop: Shop) -> None:
    """Deletes are not applied to the inputs of another builder's merge, which would have been for nothing."""
    await segments(shop, 3)
    await shop.write({}, deletes=range(20))
    for name in ("merge/1.3", "drop/all", "rewrite/1"):
        await shop.store.acquire(f"task/1/0/{name}", NodeId("rival"), "nonce", 60.0)

    assert await shop.builder().step() == 0


async def test_work_ends_when_its_claim_is_lost(shop: Shop) -> None:
    """A claim that another node may have taken ends what is done under it at once, as it could not be committed."""
    claims = Claims(shop.store, NodeId("b1"), shop.clock, ttl_s=0.01)

    with pytest.raises(MishardsError) as raised:
        async with claims.hold("task/1") as claim:
            await shop.store.release(claim.name, claim.nonce)
            await asyncio.Event().wait()

    assert raised.value.kind is Kind.FENCED


async def test_a_merged_segment_comes_with_its_index(shop: Shop) -> None:
    """No search has to read all of it until an index is built: no record of it ever lacks the index."""
    await shop.define(indexes=(INDEX,))
    await segments(shop, 3)

    await settle(shop)

    manifest = shop.mirror.get(shop.collection.id)
    assert manifest is not None
    merged = [file for file in manifest.segments.values() if file.rows == 30]
    assert merged
    assert all(file.part("index", INDEX.field_id, INDEX.id) for file in merged)
    await shop.check()


async def test_announcement(shop: Shop) -> None:
    """What a builder commits is known to its mirror at once and announced to all."""
    await segments(shop, 3)

    await shop.builder().step()

    merged = [file for notice in shop.announced if notice.delta for file in notice.delta.added]
    assert [file.id for file in shop.known() if file.kind is FileKind.SEGMENT] == [file.id for file in merged]


async def test_running(shop: Shop) -> None:
    """A started builder works by itself until it is stopped, and starts with an empty folder."""
    await segments(shop, 3)
    builder = shop.builder()
    left_over = shop.work_dir("b1") / "left" / "over"
    left_over.parent.mkdir(parents=True)
    left_over.touch()

    merged = asyncio.Event()
    shop.mirror.on_change(lambda _: merged.set() if len(shop.known()) == 1 else None)
    await builder.start()
    await asyncio.wait_for(merged.wait(), timeout=20)
    await builder.stop()

    assert not left_over.exists()
    await shop.check()


async def test_stop_while_building(shop: Shop) -> None:
    """Stopping does not wait for an index that is being built, and leaves no upload behind."""
    await segments(shop, 1)
    await settle(shop)
    await shop.define(indexes=(INDEX,))
    before = await shop.storage.list("1/")
    shop.index.gate.clear()
    builder = shop.builder()
    await builder.start()
    await asyncio.to_thread(shop.index.building.wait)

    await builder.stop()
    shop.index.gate.set()

    assert await shop.storage.list("1/") == before
    assert await shop.store.leases("task/") == []
