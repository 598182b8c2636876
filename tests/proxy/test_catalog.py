"""Names to collections: asked for once more before a request is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import Collection, Partition, PartitionId
from mishards.proxy.catalog import Catalog, readable_partitions
from mishards.testing.metadata_records import a_collection, refused

PARTITIONS = (Partition(PartitionId(1), "_default", 1), Partition(PartitionId(2), "north", 1))


class FakeViews:
    """Snapshots, of any collection but those that are `dropped`."""

    def __init__(self) -> None:
        self.known: dict[str, Manifest] = {}
        self.dropped: set[int] = set()

    async def find(self, collection_id: int, name: str, fresh: bool = False) -> Manifest | None:
        return None if collection_id in self.dropped else self.known.get(name)


class FakeMirror:
    """`news` is what a refresh brings."""

    def __init__(self, *collections: Collection) -> None:
        self.known = {collection.name: Manifest(collection) for collection in collections}
        self.news: Callable[[], None] = lambda: None
        self.refreshed = 0
        self.failure: MishardsError | None = None
        self.pinned = FakeViews()

    def find(self, database: str, name: str) -> Manifest | None:
        return self.known.get(name)

    def get(self, collection_id: int) -> Manifest | None:
        return next((m for m in self.known.values() if m.collection.id == collection_id), None)

    def manifests(self) -> list[Manifest]:
        return list(self.known.values())

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.failure is not None:
            raise self.failure
        self.news()

    def put(self, **changes: Any) -> None:
        """The collection as it is now."""
        collection = a_collection(**{"partitions": PARTITIONS, **changes})
        if collection.name in self.known:
            self.known[collection.name].collection = collection
        else:
            self.known[collection.name] = Manifest(collection)


def catalog_of(mirror: FakeMirror) -> Catalog:
    given: Any = mirror
    return Catalog(given)


async def test_a_known_name_costs_no_question() -> None:
    """P18: nothing on the hot path asks the metadata service."""
    mirror = FakeMirror()
    mirror.put(loaded=True)

    await catalog_of(mirror).loaded("default", "books", ("north",))

    assert mirror.refreshed == 0


@pytest.mark.parametrize("missing", ["collection", "load", "partition", "partition's load"])
async def test_what_another_proxy_has_just_made_is_found(missing: str) -> None:
    """A collection, its being loaded and its partitions may be news not yet heard."""
    mirror = FakeMirror()
    if missing == "load":
        mirror.put(loaded=False)
    elif missing == "partition":
        mirror.put(loaded=True, partitions=PARTITIONS[:1])
    elif missing == "partition's load":
        mirror.put(loaded=True, released_partitions=(PartitionId(2),))
    mirror.news = lambda: mirror.put(loaded=True)

    manifest = await catalog_of(mirror).loaded("default", "books", ("north",))

    assert manifest.collection.loaded
    assert mirror.refreshed == 1


async def test_what_nobody_has_is_refused_after_one_question() -> None:
    """With the kind that says what is missing."""
    mirror = FakeMirror()
    catalog = catalog_of(mirror)

    await refused(Kind.COLLECTION_NOT_FOUND, catalog.known("default", "books"))
    assert mirror.refreshed == 1

    mirror.put(loaded=False)
    await refused(Kind.COLLECTION_NOT_LOADED, catalog.loaded("default", "books"))
    mirror.put(loaded=True)
    await refused(Kind.PARTITION_NOT_FOUND, catalog.loaded("default", "books", ("south",)))
    mirror.put(loaded=True, released_partitions=(PartitionId(2),))
    await refused(Kind.PARTITION_NOT_LOADED, catalog.loaded("default", "books", ("north",)))
    await refused(Kind.DATABASE_NOT_FOUND, catalog.known("other", "books"))


async def test_during_an_outage_the_last_view_answers() -> None:
    """P14: what was known is still found; whether there is anything else nobody can tell."""
    mirror = FakeMirror()
    mirror.put(loaded=True)
    mirror.failure = MishardsError(Kind.METADATA_UNAVAILABLE, "down")

    assert (await catalog_of(mirror).fresh("default", "books")).collection.name == "books"
    await refused(Kind.METADATA_UNAVAILABLE, catalog_of(mirror).known("default", "films"))
    await refused(Kind.METADATA_UNAVAILABLE, catalog_of(mirror).loaded("default", "books", ("east",)))
    mirror.put(loaded=False)
    await refused(Kind.METADATA_UNAVAILABLE, catalog_of(mirror).loaded("default", "books"))


async def test_after_a_refusal_a_dropped_or_released_collection_is_named_as_such() -> None:
    """Not as a trouble of some reader."""
    mirror = FakeMirror()
    mirror.put(loaded=True)
    manifest = mirror.known["books"]
    mirror.news = lambda: mirror.put(loaded=False)
    await refused(Kind.COLLECTION_NOT_LOADED, catalog_of(mirror).recheck(manifest, "books"))

    mirror.news = mirror.known.clear
    await refused(Kind.COLLECTION_NOT_FOUND, catalog_of(mirror).recheck(manifest, "books"))


async def test_after_a_refusal_the_view_of_now_is_planned_with() -> None:
    """The mirror may have read the collection from the start; during an outage what is known serves on."""
    mirror = FakeMirror()
    mirror.put(loaded=True)
    before = mirror.known["books"]
    mirror.news = lambda: mirror.known.update(books=Manifest(before.collection))

    assert await catalog_of(mirror).recheck(before, "books") is mirror.known["books"] is not before

    mirror.failure = MishardsError(Kind.METADATA_UNAVAILABLE, "down")
    assert await catalog_of(mirror).recheck(before, "books") is mirror.known["books"]


def test_without_names_all_loaded_partitions_are_read() -> None:
    """Released ones are left out."""
    collection = a_collection(partitions=PARTITIONS, released_partitions=(PartitionId(1),))

    assert readable_partitions(collection, ()) == {2}
    assert readable_partitions(collection, ("north", "north")) == {2}


async def test_a_snapshot_is_read_under_its_own_name() -> None:
    """`books@monday` is the frozen view, loaded or not; an unknown one is not found."""
    mirror = FakeMirror()
    mirror.put(loaded=False)
    view = Manifest(a_collection(9, "books@monday", partitions=PARTITIONS, loaded=True), frozen=True)
    mirror.pinned.known["monday"] = view
    catalog = catalog_of(mirror)

    assert await catalog.loaded("default", "books@monday", ("north",)) is view
    assert await catalog.fresh("default", "books@monday") is view
    assert await catalog.recheck(view, "books@monday") is view
    await refused(Kind.PARTITION_NOT_FOUND, catalog.loaded("default", "books@monday", ("south",)))
    for call in (catalog.loaded("default", "books@never"), catalog.fresh("default", "films@monday")):
        await refused(Kind.COLLECTION_NOT_FOUND, call)
    await refused(Kind.PARAMETER_INVALID, catalog.known("default", "books@monday"))
    del mirror.pinned.known["monday"]
    await refused(Kind.COLLECTION_NOT_FOUND, catalog.recheck(view, "books@monday"))


async def test_a_snapshot_of_what_has_the_name_now_is_found() -> None:
    """The collection was dropped and made anew, and this process has not heard of it."""
    mirror = FakeMirror()
    mirror.put(loaded=True)
    view = mirror.pinned.known["monday"] = Manifest(a_collection(9, "books@monday"), frozen=True)
    mirror.pinned.dropped = {mirror.known["books"].collection.id}
    mirror.news = lambda: mirror.put(id=2)

    assert await catalog_of(mirror).loaded("default", "books@monday") is view


async def test_what_is_only_read_is_not_writable() -> None:
    """A snapshot is refused; a collection is given as the metadata service has it now."""
    mirror = FakeMirror()
    mirror.put(loaded=True)
    mirror.pinned.known["monday"] = Manifest(a_collection(9, "books@monday"), frozen=True)
    mirror.news = lambda: mirror.put(id=2)
    catalog = catalog_of(mirror)

    assert (await catalog.writable("default", "books")).collection.id == 2
    await refused(Kind.PARAMETER_INVALID, catalog.writable("default", "books@monday"))
