"""Frozen views: read once, looked up by name when that is old (P13, P14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.metadata import pinned, snapshots
from mishards.metadata.pinned import PinnedViews
from mishards.metadata.store import SqlStore
from mishards.model import CollectionId, Delta
from mishards.ports import Pin
from mishards.testing.metadata_records import a_collection, a_commit, a_file, refused

BOOKS = CollectionId(1)


class Counted(SqlStore):
    """Counts questions, and may be down."""

    questions = 0
    down = False

    async def pins(self, collection_id: CollectionId | None = None) -> list[Pin]:
        self._ask()
        return await super().pins(collection_id)

    async def pinned(self, id: CollectionId) -> tuple[Pin, Delta]:
        self._ask()
        return await super().pinned(id)

    def _ask(self) -> None:
        self.questions += 1
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "down")


class Desk:
    """Views over a collection with one commit."""

    def __init__(self, store: Counted) -> None:
        self.store = store
        self.clock = FakeClock()
        self.views = PinnedViews(store, self.clock)

    async def take(self, name: str, id: int) -> Pin:
        return await snapshots.take(self.store, self.clock, id, a_collection(), name)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = Counted(f"sqlite:///{tmp_path}/metadata.db", FakeClock())
    await store.open()
    await store.create_collection(a_collection())
    await store.commit(a_commit("one", a_file(1)))
    yield Desk(store)
    await store.close()


async def test_a_view_is_read_once(desk: Desk) -> None:
    """The view has the pin's id, name and files, and is kept; its name is looked up again after a second."""
    pin = await desk.take("monday", 100)

    view = await desk.views.find(BOOKS, "monday")

    assert view is not None and view.frozen
    assert (view.collection.id, view.collection.name, view.collection.loaded) == (pin.id, "books@monday", True)
    assert (view.version, view.oldest, [file.collection_id for file in view.live()]) == (1, 1, [pin.id])
    assert desk.store.questions == 2
    assert await desk.views.find(BOOKS, "monday") is view
    assert desk.views.get(pin.id) is view
    assert desk.store.questions == 2
    desk.clock.advance(pinned.CHECK_S + 0.1)
    assert await desk.views.find(BOOKS, "monday") is view
    assert desk.store.questions == 3


async def test_a_new_name_is_found_at_once(desk: Desk) -> None:
    """A name that is not known is asked for; one that was dropped is gone after a second, or at once if looked up
    afresh or told."""
    await desk.views.find(BOOKS, "monday")
    first = await desk.take("monday", 100)
    assert await desk.views.find(BOOKS, "monday") is not None

    await desk.store.drop_pin(first.id)
    second = await desk.take("monday", 101)

    old = await desk.views.find(BOOKS, "monday")
    assert old is not None and old.collection.id == first.id
    desk.views.look_again(BOOKS)
    new = await desk.views.find(BOOKS, "monday")
    assert new is not None and new.collection.id == second.id
    await desk.store.drop_pin(second.id)
    assert await desk.views.find(BOOKS, "monday", fresh=True) is None
    assert await desk.views.load(CollectionId(102)) is None


async def test_views_outlive_an_outage(desk: Desk) -> None:
    """While the metadata service is down what is known goes on; what is not known is an outage, not a refusal."""
    await desk.take("monday", 100)
    view = await desk.views.find(BOOKS, "monday")
    desk.store.down = True
    desk.clock.advance(10.0)

    assert await desk.views.find(BOOKS, "monday") is view
    await refused(Kind.METADATA_UNAVAILABLE, desk.views.find(BOOKS, "tuesday"))
    await refused(Kind.METADATA_UNAVAILABLE, desk.views.find(CollectionId(2), "monday"))
    await refused(Kind.METADATA_UNAVAILABLE, desk.views.load(CollectionId(102)))


async def test_views_are_bounded(desk: Desk) -> None:
    """Of many views those used last are kept (P15)."""
    for number in range(pinned.VIEWS_MAX + 1):
        await desk.take(f"s{number}", 100 + number)
    for number in range(pinned.VIEWS_MAX):
        await desk.views.find(BOOKS, f"s{number}")
    await desk.views.find(BOOKS, "s0")

    await desk.views.find(BOOKS, f"s{pinned.VIEWS_MAX}")

    assert desk.views.get(CollectionId(100)) is not None
    assert desk.views.get(CollectionId(101)) is None
