"""Echoes: the metadata of each collection in storage, as new as needed and no more than that (P14)."""

from __future__ import annotations

from pathlib import Path

from building import Shop

from mishards.builder.claims import Claims
from mishards.builder.echoing import BYTES_PER_S, KEPT, LEASE, Echoer
from mishards.clock import SystemClock
from mishards.metadata.echo import Echo, decode, folder_of
from mishards.metadata.rebuild import GAP, rebuild
from mishards.metadata.snapshots import take
from mishards.metadata.store import open_store
from mishards.model import CollectionId, FileId, NodeId


def echoer_of(shop: Shop, name: str = "b1") -> Echoer:
    claims = Claims(shop.store, NodeId(name), shop.clock, 30.0)
    return Echoer(shop.store, shop.storage, shop.mirror, claims, shop.clock)


async def echoes(shop: Shop) -> list[Echo]:
    """The oldest first."""
    paths = sorted(await shop.storage.list(folder_of(shop.collection.id)))
    return [decode(await shop.storage.get(path), path) for path in paths]


async def test_an_echo_has_everything_of_its_version(shop: Shop) -> None:
    """Definition, live files and their payloads."""
    await shop.write({1: 10, 2: 20})
    await shop.write({2: 21}, in_storage=True)

    assert await echoer_of(shop).echo() == 1

    (echo,) = await echoes(shop)
    manifest = shop.mirror.get(shop.collection.id)
    assert manifest is not None
    assert (echo.collection, echo.version, echo.head) == (shop.collection, manifest.version, manifest.head)
    assert list(echo.files) == manifest.live()
    assert echo.payloads.keys() == {file.id for file in echo.files if file.inline} != set()


async def test_only_what_has_changed_is_echoed(shop: Shop) -> None:
    """A commit, a change of the definition and a snapshot are changes; the newest few echoes are kept."""
    echoer = echoer_of(shop)
    counts = [await echoer.echo(), await echoer.echo()]

    for number in range(3):
        await shop.write({number: number})
        shop.clock.advance(1)
        counts.append(await echoer.echo())
    await shop.define(properties={"a": "b"})
    shop.clock.advance(1)
    counts.append(await echoer.echo())
    shop.clock.advance(1)
    await take(shop.store, shop.clock, await shop.ids.take(1), shop.collection, "monday")
    counts += [await echoer.echo(), await echoer.echo()]

    kept = await echoes(shop)
    assert counts == [1, 0, 1, 1, 1, 1, 1, 0]
    assert len(kept) == KEPT
    assert [pin.name for pin in kept[-1].pins] == ["monday"]
    assert kept[-1].collection.properties == {"a": "b"}


async def test_large_echoes_are_rarer(shop: Shop) -> None:
    """On average a collection is echoed at so many bytes a second."""
    echoer = echoer_of(shop)
    await shop.write({1: 1})
    await echoer.echo()
    size = len(await shop.storage.get((await shop.storage.list(folder_of(shop.collection.id)))[0]))
    await shop.write({2: 2})

    assert await echoer.echo() == 0
    shop.clock.advance(size / BYTES_PER_S)
    assert await echoer.echo() == 1


async def test_one_builder_at_a_time_echoes(shop: Shop) -> None:
    """Nothing is echoed while another one is at it."""
    await shop.store.acquire(LEASE, NodeId("b2"), "nonce", 60.0)

    assert await echoer_of(shop).echo() == 0


async def test_snapshots_are_rebuilt_with_the_files_that_only_they_need(shop: Shop, tmp_path: Path) -> None:
    """What was replaced since a snapshot can still be read at it, by a database made of the echo."""
    await shop.write({1: 10, 2: 20})
    pin = await take(shop.store, shop.clock, await shop.ids.take(1), shop.collection, "monday")
    _, before = await shop.store.pinned(pin.id)
    await shop.write({1: 11}, deletes=[2])
    await shop.seal()
    await echoer_of(shop).echo()

    other = open_store(f"sqlite:///{tmp_path}/rebuilt/metadata.db", SystemClock())
    await other.open()
    report = await rebuild(other, shop.storage, SystemClock())
    (head,) = await other.heads()
    (found,) = await other.pins()
    _, after = await other.pinned(pin.id)
    payloads = await other.payloads([file.id for file in after.added])
    ids = [CollectionId(head.collection_id), *(FileId(file.id) for file in after.added)]

    assert report.problems == () and report.restored[0].snapshots == 1
    assert head.version == report.restored[0].version + GAP
    assert (found.name, found.version) == ("monday", pin.version)
    assert [file.id for file in after.added] == [file.id for file in before.added]
    assert payloads.keys() == {file.id for file in after.added if file.inline}
    assert await other.take_ids(1) > max(ids)
    await other.close()
