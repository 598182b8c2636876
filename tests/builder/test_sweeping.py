"""Orphans: uploads that nothing lists go once nothing can list them any more, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from building import Shop, open_shop
from msgspec.structs import replace

from mishards.builder.sweeping import Sweeper
from mishards.model import FileKind, NodeId, Part
from mishards.ports import CommitRequest

QUARANTINE_S = 1000.0
SHARD = "shard/1/0"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as shop:
        yield shop


def sweeper(shop: Shop, quarantine_s: float = 0.0) -> Sweeper:
    return Sweeper(shop.store, shop.storage, shop.mirror, shop.clock, quarantine_s)


async def upload(shop: Shop, token: str) -> str:
    path = f"1/0/{token}/{shop.clock.token()}.rows"
    await shop.storage.put(path, b"rows")
    return path


async def commit(shop: Shop, path: str, nonce: str) -> None:
    """List an upload, as the holder of the shard's lease does it."""
    file = replace(await shop._file(FileKind.ROWS, 1, 1), parts=(Part(kind="fresh", path=path, bytes=4),), inline=False)
    request = CommitRequest(
        collection_id=shop.collection.id,
        uuid=shop.clock.token(),
        kind="write",
        now_ms=1,
        leases=((SHARD, nonce),),
        added=(file,),
    )
    await shop.store.commit(request)


async def test_an_upload_under_a_lease_stays(shop: Shop) -> None:
    """As long as the lease of an upload's token may still commit, run out or not, the upload stays."""
    await shop.store.acquire(SHARD, NodeId("w1"), "mine", 0.0)
    path = await upload(shop, "mine")

    assert await sweeper(shop).sweep() == 0

    await commit(shop, path, "mine")
    assert await shop.storage.list("") == [path]


async def test_a_fenced_upload_goes(shop: Shop) -> None:
    """When another has taken the lease, what was uploaded under the old nonce goes, but for what was listed in time:
    whether or not the mirror has heard of it."""
    await shop.store.acquire(SHARD, NodeId("w1"), "old", 0.0)
    listed, lost = await upload(shop, "old"), await upload(shop, "old")
    await commit(shop, listed, "old")
    await shop.store.acquire(SHARD, NodeId("w2"), "new", 10.0)

    assert await sweeper(shop).sweep() == 1
    assert await shop.storage.list("") == [listed]
    assert lost not in await shop.storage.list("")
    await shop.mirror.refresh()
    assert await sweeper(shop).sweep() == 0


async def test_a_removed_file_is_no_orphan(shop: Shop) -> None:
    """What a record of a removed file names is left to the collector, who knows whether somebody uses it."""
    await shop.write({1: 1}, in_storage=True)
    await shop.seal()
    await shop.mirror.refresh()

    assert await sweeper(shop).sweep() == 0


async def test_quarantine(shop: Shop) -> None:
    """An orphan goes only when it has been known as one for the quarantine, by the collector's own clock."""
    path = await upload(shop, "nobody")
    patient = sweeper(shop, QUARANTINE_S)

    assert await patient.sweep() == 0
    shop.clock.advance(QUARANTINE_S - 1)
    assert await patient.sweep() == 0
    assert await shop.storage.list("") == [path]

    shop.clock.advance(QUARANTINE_S)
    assert await patient.sweep() == 1
    assert await shop.storage.list("") == []


async def test_what_is_named_again_leaves_quarantine(shop: Shop) -> None:
    """An orphan that a repaired metadata service names again is not deleted."""
    await shop.store.acquire(SHARD, NodeId("w1"), "lost", 0.0)
    path = await upload(shop, "lost")
    await shop.store.release(SHARD, "lost")
    patient = sweeper(shop, QUARANTINE_S)
    assert await patient.sweep() == 0

    await shop.store.acquire(SHARD, NodeId("w1"), "lost", 0.0)
    await commit(shop, path, "lost")
    shop.clock.advance(2 * QUARANTINE_S)

    assert await patient.sweep() == 0
    assert await shop.storage.list("") == [path]


async def test_what_is_not_ours_stays(shop: Shop) -> None:
    """Folders of unknown collections and objects that no commit lists by their form are left alone."""
    foreign = ["77/0/token/name.rows", "1/manifest.json", "1/0/note.txt"]
    for path in foreign:
        await shop.storage.put(path, b"x")

    assert await sweeper(shop).sweep() == 0
    assert await shop.storage.list("") == sorted(foreign)


async def test_leases_that_nobody_wants(shop: Shop) -> None:
    """A lease that ran out long ago is forgotten, so that uploads of its task can be told to be garbage."""
    await shop.store.acquire("task/1/0/index/9", NodeId("b1"), "crashed", 0.0)
    await shop.store.acquire(SHARD, NodeId("w1"), "busy", 60.0)
    await upload(shop, "crashed")
    assert await sweeper(shop).sweep() == 0

    assert await shop.store.forget_leases(0.0) == 1

    assert await sweeper(shop).sweep() == 1
    assert [lease.name for lease in await shop.store.leases("")] == [SHARD]
