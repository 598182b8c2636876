"""Garbage: objects that nothing needs go, all others stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from building import INDEX, SETTINGS, Shop, open_shop, settle
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mishards.builder.collecting import FILES_MAX, REMOVED_MAX, collectable_paths
from mishards.errors import Kind, MishardsError
from mishards.metadata.store import SqlStore
from mishards.model import CollectionId, File, FileId, FileKind, Part, Version
from mishards.ports import CommitRequest

AT_ONCE = replace(SETTINGS, garbage_grace_s=0.0)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as shop:
        yield shop


async def referenced(shop: Shop) -> set[str]:
    return {part.path for file in await shop.live() for part in file.parts if part.path}


def record(id: int, paths: set[str]) -> File:
    parts = tuple(Part(kind="vectors", path=path, bytes=1) for path in sorted(paths))
    return File(
        id=FileId(id), collection_id=CollectionId(1), shard=0, kind=FileKind.SEGMENT, rows=1, bytes=1, parts=parts
    )


paths = st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=6)


@given(expired=paths, kept=paths)
def test_collectable_paths(expired: list[set[str]], kept: list[set[str]]) -> None:
    """An object goes if and only if an expired record names it and no record that stays does."""
    going = collectable_paths(
        [record(id, named) for id, named in enumerate(expired)],
        [record(100 + id, named) for id, named in enumerate(kept)],
    )

    assert going == sorted(set[str]().union(*expired) - set[str]().union(*kept))


def test_inline_payloads_are_no_objects() -> None:
    """A fresh file whose payload lies in the metadata service names no object."""
    assert collectable_paths([record(1, {""})], []) == []


class OneExpired(SqlStore):
    """A store by whose clock the grace of one record alone is over."""

    def __init__(self, store: SqlStore, expired: File) -> None:
        self.__dict__.update(store.__dict__)
        self._expired = expired

    async def removed_files(
        self,
        older_than_s: float,
        limit: int,
        kind: FileKind | None = None,
        needed: Mapping[CollectionId, Version] = MappingProxyType({}),
        pinned: bool = False,
    ) -> list[File]:
        removed = await super().removed_files(0.0, limit, kind, needed, pinned)
        return [file for file in removed if file.id == self._expired.id or limit == REMOVED_MAX]


async def churn(shop: Shop) -> None:
    """A segment that was indexed, then got deletes, beside a merged one, with fresh files in storage."""
    await shop.define(indexes=(INDEX,))
    for start in range(0, 30, 10):
        await shop.write({start + i: start + i for i in range(10)}, in_storage=True)
        await shop.seal()
    await settle(shop)
    await shop.write({50: 50}, deletes=[3], in_storage=True)
    await shop.write({}, deletes=range(200, 209), in_storage=True)
    await settle(shop)


async def test_only_unreferenced_objects_go(shop: Shop) -> None:
    """After a collection, storage holds exactly what the live records name."""
    await churn(shop)
    assert set(await shop.storage.list("")) > await referenced(shop)

    await shop.builder(settings=AT_ONCE).collect()

    assert set(await shop.storage.list("")) == await referenced(shop)
    assert await shop.store.removed_files(0.0, 100) == []


async def test_a_round_keeps_up(shop: Shop) -> None:
    """One round collects all that is due, however many batches it takes: garbage does not outgrow the rounds."""
    many = tuple(replace(record(id, {""}), collection_id=shop.collection.id) for id in range(1, FILES_MAX + 6))
    first = CommitRequest(collection_id=shop.collection.id, uuid="many", kind="write", now_ms=1, added=many)
    await shop.store.commit(first)
    await shop.store.commit(replace(first, uuid="gone", added=(), removed=tuple(file.id for file in many)))

    assert await shop.builder(settings=AT_ONCE).collect() == len(many)

    assert await shop.store.removed_files(0.0, 10) == []


async def test_grace(shop: Shop) -> None:
    """Before the grace is over nothing goes."""
    await churn(shop)
    before = await shop.storage.list("")

    await shop.builder().collect()

    assert await shop.storage.list("") == before


async def test_a_layout_in_use_keeps_its_files(shop: Shop) -> None:
    """What was removed after the oldest layout in use stays, however long ago; what was removed up to it goes (P12)."""
    await churn(shop)
    removals = sorted({file.removed for file in await shop.store.removed_files(0.0, 100)})
    floor = removals[len(removals) // 2]
    shop.floors[shop.collection.id] = floor

    await shop.builder(settings=AT_ONCE).collect()

    left = await shop.store.removed_files(0.0, 100)
    assert sorted({file.removed for file in left}) == [version for version in removals if version > floor]
    needed = {part.path for file in left for part in file.parts if part.path}
    assert needed <= set(await shop.storage.list(""))

    shop.floors[shop.collection.id] = removals[-1]
    await shop.builder(settings=AT_ONCE).collect()
    assert set(await shop.storage.list("")) == await referenced(shop)


async def test_files_in_use_hold_up_no_others(shop: Shop) -> None:
    """More files in use than are collected at once do not keep the garbage behind them."""
    used = tuple(replace(record(id, {""}), collection_id=shop.collection.id) for id in range(1, FILES_MAX + 6))
    first = CommitRequest(collection_id=shop.collection.id, uuid="many", kind="write", now_ms=1, added=used)
    await shop.store.commit(first)
    await shop.store.commit(replace(first, uuid="gone", added=(), removed=tuple(file.id for file in used)))
    other = replace(shop.collection, id=CollectionId(2), name="other")
    await shop.store.create_collection(other)
    free = replace(record(5_000, {""}), collection_id=other.id)
    await shop.store.commit(replace(first, collection_id=other.id, uuid="one", added=(free,)))
    await shop.store.commit(replace(first, collection_id=other.id, uuid="none", added=(), removed=(free.id,)))
    shop.floors[shop.collection.id] = Version(1)

    assert await shop.builder(settings=AT_ONCE).collect() == 1

    assert len(await shop.store.removed_files(0.0, 10_000)) == len(used)


async def test_a_silent_node_keeps_removed_files(shop: Shop) -> None:
    """While a live node does not tell what it uses no removed file goes, and dropped collections do."""
    await churn(shop)
    before = set(await shop.storage.list(""))

    async def silent() -> dict[CollectionId, Version]:
        raise MishardsError(Kind.UNAVAILABLE, "node n1 does not tell which layouts it uses")

    collector = shop.builder(settings=AT_ONCE, floors=silent)
    await collector.collect()
    assert set(await shop.storage.list("")) == before

    await shop.store.drop_collection(shop.collection.id)
    await collector.collect()
    assert await shop.storage.list("") == []


async def test_shared_with_a_younger_record(shop: Shop) -> None:
    """What an expired record shares with one that was removed later stays as long as that one."""
    await churn(shop)
    await shop.write({}, deletes=range(60))
    await shop.seal()
    await settle(shop)
    assert await shop.live(FileKind.SEGMENT) == []
    removed = [file for file in await shop.store.removed_files(0.0, 100) if file.kind is FileKind.SEGMENT]
    old, young = next(
        (old, young) for old in removed for young in removed if old.id < young.id and old.segment_id == young.segment_id
    )
    shared = {part.path for part in old.parts} & {part.path for part in young.parts}
    assert shared
    collector = shop.builder(store=OneExpired(shop.store, old), settings=AT_ONCE)

    assert await collector.collect() == 1

    assert shared <= set(await shop.storage.list(""))


async def test_two_collectors(shop: Shop) -> None:
    """Collecting twice at once, or once more, does no harm (I19)."""
    await churn(shop)
    collectors = [shop.builder(name, settings=AT_ONCE) for name in ("b1", "b2")]

    await asyncio.gather(*(collector.collect() for collector in collectors))
    await collectors[0].collect()

    assert set(await shop.storage.list("")) == await referenced(shop)


async def test_dropped_collection(shop: Shop) -> None:
    """A dropped collection leaves nothing behind, whatever its files are."""
    await churn(shop)
    await shop.store.drop_collection(shop.collection.id)

    await shop.builder().collect()
    assert await shop.storage.list("")
    await shop.builder(settings=AT_ONCE).collect()

    assert await shop.storage.list("") == []
    assert await shop.store.dropped_collections(0.0) == []
    assert await shop.store.removed_files(0.0, 100) == []


async def test_folders_of_no_collection_are_emptied(shop: Shop) -> None:
    """What lies in a folder that nobody goes on to fill goes, echoes of its collection too; what may still become a
    collection's stays, as does what comes from another database."""
    for path in ("7/0/t/a.scalars", "manifest/7/1-1-t.json", "8/0/t/b.scalars", "9/0/t/c.scalars"):
        await shop.storage.put(path, b"x")
    await shop.store.open_folder(CollectionId(7), 0)
    await shop.store.open_folder(CollectionId(8), 60)

    assert await shop.builder(settings=replace(AT_ONCE, orphan_quarantine_s=0.0)).collect() == 2
    assert await shop.storage.list("") == ["8/0/t/b.scalars", "9/0/t/c.scalars"]


async def test_folders_of_lapsed_imports_wait_for_their_quarantine(shop: Shop) -> None:
    """As all orphans do."""
    await shop.storage.put("7/0/t/a.scalars", b"x")
    await shop.store.open_folder(CollectionId(7), 0)

    assert await shop.builder(settings=replace(AT_ONCE, orphan_quarantine_s=60.0)).collect() == 0
    assert await shop.storage.list("") == ["7/0/t/a.scalars"]
