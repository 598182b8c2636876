"""What every metadata service must do for pins (P13); a part of `metadata_suite.MetadataSuite`."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from mishards.clock import FakeClock
from mishards.errors import Kind
from mishards.metadata import snapshots
from mishards.model import Collection, CollectionId, FileId, FileKind, Version
from mishards.ports import Import, MetadataStore, Pin
from mishards.testing.metadata_records import a_collection, a_commit, a_file, refused

BOOKS = CollectionId(1)


async def snapshot(store: MetadataStore, name: str = "monday", id: int = 100) -> Pin:
    """A snapshot of collection 1."""
    return await snapshots.take(store, FakeClock(), id, a_collection(), name)


async def live_at(store: MetadataStore, pin: Pin) -> set[int]:
    return {file.id for file in (await store.pinned(pin.id))[1].added}


async def with_history(store: MetadataStore) -> None:
    """Versions 1 to 3 of collection 1: files 1 and 2, a segment 3 in their place, its successor 4 that shares parts."""
    await store.create_collection(a_collection())
    segment = a_file(3, FileKind.SEGMENT)
    await store.commit(a_commit("one", a_file(1), a_file(2)))
    await store.commit(a_commit("two", segment, removed=(1, 2)))
    await store.commit(a_commit("three", replace(segment, id=FileId(4)), removed=(3,)))


class PinsSuite:
    """Versions whose files stay."""

    async def test_a_pin_shows_its_version_for_ever(self, store: MetadataStore, other: MetadataStore) -> None:
        """A pin lists the files that were live when it was taken, whatever is committed or defined later; they carry
        no removal, and their payloads are there."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("one", a_file(1), a_file(2)))
        pin = await snapshot(store)
        changed = a_collection(updated_ts=2**40, properties={"a": "b"})
        await store.replace_collection(a_collection(), changed)
        await store.commit(a_commit("two", a_file(3, FileKind.SEGMENT), removed=(1, 2)))
        await store.commit(a_commit("three", a_file(4)))

        found, delta = await other.pinned(pin.id)

        assert found == pin and pin.version == 1 and pin.definition == a_collection()
        assert [(file.id, file.removed) for file in delta.added] == [(1, 0), (2, 0)]
        assert (delta.after, delta.version, delta.ts) == (0, 1, pin.ts)
        assert set(await other.payloads([FileId(1), FileId(2)])) == {1, 2}

    async def test_pinned_files_are_not_collected(self, store: MetadataStore) -> None:
        """Of removed files only those that no pin needs may be collected, all of them once the pin is dropped; whoever
        asks for the pinned ones too gets them."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("one", a_file(1)))
        pin = await snapshot(store)
        await store.commit(a_commit("two", a_file(2), removed=(1,)))
        await store.commit(a_commit("three", a_file(3), removed=(2,)))

        assert [file.id for file in await store.removed_files(0, 10)] == [2]
        assert [file.id for file in await store.removed_files(0, 10, pinned=True)] == [1, 2]
        await store.drop_pin(pin.id)
        assert [file.id for file in await store.removed_files(0, 10)] == [1, 2]

    async def test_forgetting_others_leaves_the_pinned(self, store: MetadataStore) -> None:
        """When what came after the pin is forgotten the pin still lists its files."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("one", a_file(1)))
        pin = await snapshot(store)
        await store.commit(a_commit("two", a_file(2), removed=(1,)))
        await store.commit(a_commit("three", a_file(3), removed=(2,)))
        await store.forget_files([FileId(2)])
        await store.forget_commits(0, 0)

        assert await live_at(store, pin) == {1}
        assert {file.id for file in (await store.delta(BOOKS, Version(1))).added} == {3}

    async def test_pins_race_with_commits(self, store: MetadataStore, other: MetadataStore) -> None:
        """Pins taken while files replace each other list exactly one file each, that of their version."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("c1", a_file(1)))

        async def replace_files() -> None:
            for id in range(2, 12):
                await store.commit(a_commit(f"c{id}", a_file(id), removed=(id - 1,)))

        async def pin() -> list[Pin]:
            return [await snapshot(other, f"s{number}", 100 + number) for number in range(10)]

        _, pins = await asyncio.gather(replace_files(), pin())

        for taken in pins:
            assert await live_at(store, taken) == {taken.version}
        free = {file.id for file in await store.removed_files(0, 100)}
        assert free == set(range(1, 11)) - {taken.version for taken in pins}

    async def test_names_of_snapshots(self, store: MetadataStore, other: MetadataStore) -> None:
        """A name is used once in a collection; the same pin again is a success; another collection may use it too."""
        await store.create_collection(a_collection())
        await store.create_collection(a_collection(2, "films"))
        first = await snapshot(store)

        assert await snapshot(other) == first
        error = await refused(Kind.UNEXPECTED, snapshot(other, id=101))
        assert error.message == "snapshot monday already exists in collection books"
        films = await snapshots.take(store, FakeClock(), 102, a_collection(2, "films"), "monday")
        assert await store.pins() == [first, films]
        assert await store.pins(BOOKS) == [first]
        await store.drop_pin(first.id)
        await store.drop_pin(first.id)
        assert await store.pins() == [films]
        await refused(Kind.GONE, store.pinned(first.id))
        await refused(Kind.COLLECTION_NOT_FOUND, snapshots.take(store, FakeClock(), 103, a_collection(9), "a"))

    async def test_a_hold_keeps_a_snapshots_version(self, store: MetadataStore) -> None:
        """A pin made of a snapshot has its version, keeps its files after it is dropped, can be extended, and ends; a
        hold cannot be the base of another pin."""
        await with_history(store)
        monday = await snapshot(store)
        await store.commit(a_commit("four", a_file(5), removed=(4,)))
        held = await snapshots.hold(store, FakeClock(), 200, a_collection(), 60.0, monday)
        await store.drop_pin(monday.id)

        assert held.version == monday.version and held.expires
        assert await live_at(store, held) == {4}
        assert 4 not in {file.id for file in await store.removed_files(0, 10)}
        await store.renew_pin(held.id, 60.0)
        await refused(Kind.CONFLICT, snapshots.hold(store, FakeClock(), 201, a_collection(), 60.0, held))
        await store.renew_pin(held.id, 0.0)
        await refused(Kind.GONE, store.renew_pin(held.id, 60.0))
        await refused(Kind.GONE, store.pinned(held.id))
        assert await store.pins() == []

    async def test_snapshots_go_with_their_collection(self, store: MetadataStore) -> None:
        """Dropping a collection drops its snapshots; what a hold keeps is not to be collected before it goes."""
        await with_history(store)
        await snapshot(store)
        held = await snapshots.hold(store, FakeClock(), 200, a_collection(), 60.0)

        await store.drop_collection(BOOKS)

        assert [pin.id for pin in await store.pins()] == [held.id]
        assert await live_at(store, held) == {4}
        assert await store.dropped_collections(0) == []
        await store.drop_pin(held.id)
        assert await store.dropped_collections(0) == [BOOKS]

    async def test_a_restored_collection_has_the_rows_of_the_snapshot(self, store: MetadataStore) -> None:
        """It begins at the snapshot's version with files of its own ids that name the same objects and have the same
        versions; payloads are copied; the next commit follows."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("one", a_file(1), a_file(2, FileKind.SEGMENT)))
        pin = await snapshot(store)

        made = await snapshots.restore(store, FakeClock(), 50, pin, "again")

        delta = await store.delta(made.id, Version(0))
        was = (await store.pinned(pin.id))[1]
        assert (delta.version, delta.after, made.origin) == (1, 0, "books@monday")
        assert [(f.kind, f.added, f.horizon, f.parts, f.collection_id) for f in delta.added] == [
            (f.kind, f.added, f.horizon, f.parts, made.id) for f in was.added
        ]
        assert not {file.id for file in delta.added} & {file.id for file in was.added}
        rows = next(file for file in delta.added if file.inline)
        assert await store.payloads([rows.id]) == {rows.id: b"payload 1"}
        link = await store.commit(a_commit("next", replace(a_file(9), collection_id=made.id), collection_id=made.id))
        assert (link.version, link.previous) == (2, delta.head)
        assert (await store.delta(made.id, Version(1))).after == 1
        await refused(Kind.UNEXPECTED, snapshots.restore(store, FakeClock(), 51, pin, "books"))

    async def test_borrowed_objects_stay(self, store: MetadataStore) -> None:
        """What a restored collection borrows stays when the snapshot and the source are dropped, and may go when no
        record of the restored one names it any more; the borrower is never told to delete it."""
        await with_history(store)
        pin = await snapshot(store)
        made = await snapshots.restore(store, FakeClock(), 50, pin, "again")
        await store.drop_pin(pin.id)
        await store.drop_collection(BOOKS)
        (borrowed,) = (await store.delta(made.id, Version(0))).added

        assert await store.dropped_collections(0) == []
        merged = replace(a_file(60, FileKind.SEGMENT), collection_id=made.id, parts=())
        await store.commit(a_commit("merge", merged, removed=(borrowed.id,), collection_id=made.id))
        (removed,) = [file for file in await store.removed_files(0, 10) if file.id == borrowed.id]
        assert removed.parts == ()
        own = (await store.delta(made.id, Version(0))).added
        await store.commit(a_commit("own", removed=(own[0].id,), collection_id=made.id))
        await store.forget_files([borrowed.id, own[0].id])
        assert await store.dropped_collections(0) == [BOOKS]

    async def test_a_dropped_borrower_lets_go(self, store: MetadataStore) -> None:
        """When a restored collection is forgotten what it borrowed is free."""
        await with_history(store)
        pin = await snapshot(store)
        made = await snapshots.restore(store, FakeClock(), 50, pin, "again")
        await store.drop_collection(BOOKS)
        await store.drop_collection(made.id)

        assert await store.dropped_collections(0) == [made.id]
        await store.forget_collection(made.id)
        assert await store.dropped_collections(0) == [BOOKS]

    async def test_nothing_is_made_of_a_version_that_is_not_kept(self, store: MetadataStore) -> None:
        """An import that borrows from a version without a snapshot is refused whole; the same import again is none."""
        await with_history(store)
        pin = await snapshot(store)
        made: Collection = a_collection(50, "again")
        holding = replace(pin, id=CollectionId(70), name="restored/50", holder=made.id)
        imported = Import(collection=made, version=pin.version, ts=pin.ts, uuid="u", files=(), payloads={}, pin=holding)
        await store.drop_pin(pin.id)

        await refused(Kind.CONFLICT, store.import_collection(imported))
        assert [head.collection_id for head in await store.heads()] == [BOOKS]
        again = await snapshot(store, id=101)
        assert again.version == pin.version
        await store.import_collection(imported)
        await store.import_collection(imported)
        assert {head.collection_id for head in await store.heads()} == {BOOKS, made.id}
