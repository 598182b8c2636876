"""The mirror: what a process knows of the metadata, against a real store whose answers the test can hold or fail."""

from __future__ import annotations

import asyncio
from typing import cast

from mirrored import BOOKS, Door, books, push_of, until
from msgspec.structs import replace
from structlog.testing import capture_logs

from mishards.clock import FakeClock, SystemClock
from mishards.errors import Kind
from mishards.metadata.deltas import stamp
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.metadata.payloads import PayloadCache
from mishards.model import CollectionId, Delta, File, FileId, FileKind, Version
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, a_file, refused


async def test_a_started_mirror_knows_everything(mirror: Mirror) -> None:
    """After `start` each collection is found by id, name and alias, in its own database only, with its live files."""
    manifest = books(mirror)

    assert mirror.find("default", "books") is mirror.find("default", "novels") is manifest
    assert mirror.find("other", "books") is mirror.find("default", "films") is mirror.get(CollectionId(9)) is None
    assert mirror.manifests() == [manifest]
    assert (manifest.version, manifest.head, manifest.layout) == (1, "u1", 1)
    assert manifest.live_rows() == 6


async def test_a_refresh_reads_only_what_changed(mirror: Mirror, door: Door) -> None:
    """Nothing new costs one query; a commit one more, a changed definition one more."""
    await mirror.refresh()
    assert door.calls == ["heads"]

    await door.store.commit(a_commit("u2", a_file(3)))
    await mirror.refresh()
    assert door.calls == ["heads"] * 2 + ["delta"]
    assert books(mirror).version == 2 and 3 in books(mirror).files

    old = a_collection(BOOKS, "books", aliases=("novels",))
    await door.store.replace_collection(old, replace(old, name="tales", updated_ts=old.updated_ts + 1))
    await mirror.refresh()
    assert door.calls == ["heads"] * 2 + ["delta", "heads", "collections"]
    assert mirror.find("default", "books") is None
    assert mirror.find("default", "tales") is mirror.find("default", "novels") is books(mirror)


async def test_callers_share_a_round_that_was_not_sent_before_they_asked(mirror: Mirror, door: Door) -> None:
    """Those who ask while a query is in flight wait for the next one, which serves all of them, and see what was
    committed before they asked (I7)."""
    door.free.clear()
    first = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls == ["heads"])
    await door.store.commit(a_commit("u2", a_file(3)))

    later = [asyncio.create_task(mirror.refresh()) for _ in range(50)]
    given_up = asyncio.create_task(mirror.refresh())
    await asyncio.sleep(0)
    given_up.cancel()
    door.free.set()
    await first
    await asyncio.gather(*later)

    assert door.calls.count("heads") == 2
    assert books(mirror).version == 2


async def test_freshness_counts_from_when_a_refresh_was_sent(mirror: Mirror, door: Door, clock: FakeClock) -> None:
    """`observed_s` is the time at which the last successful refresh was sent, not answered (I9)."""
    sent_s = clock.now_s
    door.free.clear()
    refresh = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls == ["heads"])
    clock.advance(5)
    door.free.set()
    await refresh
    assert mirror.observed_s == sent_s

    door.down = True
    await refused(Kind.METADATA_UNAVAILABLE, mirror.refresh())
    assert mirror.observed_s == sent_s


async def test_pushes_are_applied_in_order_only(mirror: Mirror, door: Door) -> None:
    """A push that leaves a gap is not applied; one that is known already changes nothing (I16)."""
    second = await push_of(door.store, a_commit("u2", a_file(3)))
    third = await push_of(door.store, a_commit("u3", a_file(4, FileKind.SEGMENT), removed=(1, 3)))
    elsewhere = replace(second, collection_id=CollectionId(9))

    assert not mirror.apply(third)
    assert not mirror.apply(elsewhere)
    assert books(mirror).version == 1

    assert mirror.apply(second) and mirror.apply(third) and mirror.apply(third) and mirror.apply(second)
    manifest = books(mirror)
    assert (manifest.version, manifest.ts, manifest.head) == (3, third.ts, "u3")
    assert {id: file.removed for id, file in manifest.files.items()} == {1: 3, 2: 0, 3: 3, 4: 0}
    assert manifest.files[FileId(4)] == stamp(a_file(4, FileKind.SEGMENT), Version(3), third.ts)
    assert door.calls == []


async def test_a_push_that_overtakes_a_refresh_is_kept(mirror: Mirror, door: Door) -> None:
    """A refresh whose query was answered before a push neither undoes the push nor takes it for another chain."""
    door.free.clear()
    refresh = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls == ["heads"])
    push = await push_of(door.store, a_commit("u2", a_file(3)))

    assert mirror.apply(push)
    door.free.set()
    await refresh

    assert books(mirror).version == 2
    assert door.calls == ["heads"]


async def test_the_layout_moves_with_segments_only(mirror: Mirror, door: Door) -> None:
    """`layout` is the newest version that added or removed a segment; fresh files do not move it (P7)."""
    layouts = []
    for request in (
        a_commit("u2", a_file(3)),
        a_commit("u3", a_file(4, FileKind.SEGMENT), removed=(3,)),
        a_commit("u4", a_file(5, FileKind.TOMBSTONES)),
        a_commit("u5", removed=(2,)),
    ):
        assert mirror.apply(await push_of(door.store, request))
        layouts.append(books(mirror).layout)

    assert layouts == [1, 3, 3, 5]


async def test_removed_files_stay_for_a_while(mirror: Mirror, door: Door, clock: FakeClock) -> None:
    """A removed file stays listed, as removed, until its time has passed; then it goes and those who watch hear it."""
    await door.store.commit(a_commit("u2", a_file(3, FileKind.SEGMENT), removed=(1,)))
    await mirror.refresh()
    changes: list[CollectionId] = []
    mirror.on_change(changes.append)

    clock.advance(119)
    await mirror.refresh()
    assert books(mirror).files[FileId(1)].removed == 2
    assert [file.id for file in books(mirror).live()] == [2, 3]
    assert changes == []

    clock.advance(1)
    await mirror.refresh()
    assert sorted(books(mirror).files) == [2, 3]
    assert changes == [BOOKS]


async def test_watchers_hear_of_every_change(mirror: Mirror, door: Door) -> None:
    """Commits, definitions, new and dropped collections call back, once each, until the watcher unsubscribes."""
    changes: list[tuple[CollectionId, bool]] = []
    stop = mirror.on_change(lambda changed: changes.append((changed, mirror.get(changed) is not None)))

    mirror.apply(await push_of(door.store, a_commit("u2", a_file(3))))
    await mirror.refresh()
    await door.store.create_collection(a_collection(2, "films"))
    await mirror.refresh()
    await door.store.drop_collection(BOOKS)
    await mirror.refresh()
    stop()
    await door.store.drop_collection(CollectionId(2))
    await mirror.refresh()

    assert changes == [(1, True), (2, True), (1, False)]
    assert mirror.manifests() == [] and mirror.find("default", "novels") is None


async def test_a_change_that_a_drop_overtook_is_not_overlooked(mirror: Mirror, door: Door) -> None:
    """A round that hears of a change finds nothing to read: the view before it may be older than any bound (I9)."""
    known = books(mirror).collection
    await door.store.replace_collection(known, replace(known, loaded=False, updated_ts=known.updated_ts + 1))
    door.free.clear()
    refresh = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls == ["heads"])
    await door.store.drop_collection(BOOKS)
    door.free.set()
    await refresh

    assert mirror.manifests() == []


async def test_a_new_collection_appears_with_its_files(mirror: Mirror, door: Door) -> None:
    """Nobody sees a collection at a version older than the one that was read with it."""
    await door.store.create_collection(a_collection(2, "films"))
    film = replace(a_file(7), collection_id=CollectionId(2))
    await door.store.commit(a_commit("u1", film, collection_id=CollectionId(2)))
    seen: list[Version] = []
    mirror.on_change(lambda changed: seen.extend(m.version for m in mirror.manifests() if m.collection.id == changed))

    await mirror.refresh()

    assert seen == [1]


async def test_the_slow_poll_needs_no_push(door: Door) -> None:
    """A mirror that nobody calls sees a commit by itself (P9)."""
    await door.store.create_collection(a_collection(BOOKS))
    mirror = Mirror(cast(MetadataStore, door), SystemClock(), poll_s=0.001)
    await mirror.start()

    await door.store.commit(a_commit("u1", a_file(1)))
    await until(lambda: books(mirror).version == 1)

    await mirror.stop()


async def test_a_watcher_that_fails_does_not_end_the_polling(mirror: Mirror, door: Door) -> None:
    """A defect in a watcher fails the refresh that met it, and the next refresh works."""

    def fail(_: CollectionId) -> None:
        raise ValueError("defect")

    stop = mirror.on_change(fail)
    await door.store.commit(a_commit("u2", a_file(3)))
    with capture_logs():
        await refused(Kind.INTERNAL, mirror.refresh())
    stop()

    await mirror.refresh()
    assert books(mirror).version == 2


async def test_a_mirror_that_missed_forgotten_removals_starts_over(mirror: Mirror, door: Door) -> None:
    """After an outage so long that removed files were forgotten meanwhile, none of them is taken for live."""
    await door.store.commit(a_commit("u2", a_file(3, FileKind.SEGMENT), removed=(1,)))
    await door.store.forget_files([FileId(1)])

    await mirror.refresh()

    assert sorted(books(mirror).files) == [2, 3]


async def test_pushed_payloads_need_no_query(mirror: Mirror, door: Door) -> None:
    """Payloads that came with a push are at hand, others are read in one query; a file that is gone is named."""
    mirror.apply(await push_of(door.store, a_commit("u2", a_file(3), a_file(4))))
    await door.store.commit(a_commit("u3", a_file(5)))
    await mirror.refresh()
    door.calls.clear()
    files = books(mirror).files

    assert await mirror.payload(files[FileId(3)]) == b"payload 3"
    assert door.calls == []
    assert await mirror.payloads([files[FileId(id)] for id in (1, 4, 5)]) == {
        FileId(id): b"payload %d" % id for id in (1, 4, 5)
    }
    assert door.calls == ["payloads"]
    gone = await refused(Kind.GONE, mirror.payload(a_file(77)))
    assert "77" in gone.message


def test_the_payload_cache_is_bounded() -> None:
    """The cache holds the newest payloads up to its bytes (I20)."""
    cache = PayloadCache(bytes_max=10)

    cache.add({FileId(1): b"1234", FileId(2): b"1234"})
    cache.add({FileId(2): b"1234", FileId(3): b"1234"})

    assert set(cache.get([FileId(1), FileId(2), FileId(3)])) == {2, 3}


async def test_what_is_deleted_early_is_forgotten(mirror: Mirror, door: Door) -> None:
    """A file whose record is deleted sooner than this process forgets it is GONE once; then it is forgotten here, with
    all that were removed before it, for a layout that lacks one tombstone would bring rows back."""
    await door.store.commit(a_commit("u2", a_file(3, FileKind.TOMBSTONES), a_file(4), removed=(2,)))
    await door.store.commit(a_commit("u3", removed=(3,)))
    await door.store.commit(a_commit("u4", removed=(4,)))
    await mirror.refresh()
    assert set(books(mirror).files) == {1, 2, 3, 4}
    await door.store.forget_files([FileId(3)])

    gone = await refused(Kind.GONE, mirror.payloads([books(mirror).files[FileId(3)]]))

    assert gone.detail == "3"
    assert set(books(mirror).files) == {1, 4}
    assert books(mirror).oldest == 3


async def test_a_deleted_file_whose_removal_is_news(mirror: Mirror, door: Door) -> None:
    """When a live file is gone, the mirror asks what happened."""
    await door.store.commit(a_commit("u2", removed=(1,)))
    await door.store.forget_files([FileId(1)])

    await refused(Kind.GONE, mirror.payload(books(mirror).files[FileId(1)]))

    await until(lambda: set(books(mirror).files) == {2})


def test_segments_and_fresh_files_share_out_the_files() -> None:
    """Whatever comes, is removed and is forgotten: each file is in one of the two, and the removed ones go in time."""
    manifest = Manifest(a_collection())
    rows, stones, segment = (a_file(number, kind=kind) for number, kind in enumerate(FileKind, 1))
    manifest.load(_delta(0, 1, rows))
    manifest.merge(_delta(1, 3, stones, segment, removed={rows.id: Version(3)}))
    manifest.merge(_delta(2, 4, segment, removed={rows.id: Version(3), segment.id: Version(4)}))

    assert manifest.fresh.keys() == {rows.id, stones.id}
    assert manifest.segments.keys() == {segment.id}
    assert [file.id for file in manifest.live_fresh()] == [stones.id]

    assert manifest.forget_removed(Version(3))
    assert not manifest.forget_removed(Version(3))
    assert (manifest.fresh.keys(), manifest.segments.keys()) == ({stones.id}, {segment.id})
    assert manifest.forget_removed(Version(9))
    assert (manifest.files.keys(), manifest.oldest) == ({stones.id}, 4)


def _delta(after: int, version: int, *added: File, removed: dict[FileId, Version] | None = None) -> Delta:
    return Delta(
        collection_id=BOOKS,
        after=Version(after),
        version=Version(version),
        ts=version,
        head=str(version),
        added=added,
        removed=removed or {},
    )
