"""Following placement: what is loaded ahead, told, let go, and pushed out (P11, P15)."""

from __future__ import annotations

import asyncio
from typing import Any

import held as h
import numpy as np

from mishards.clock import FakeClock
from mishards.model import FileKind, Index, IndexId, Part
from mishards.reader.holding import KEEP_FROZEN_S, KEEP_UNPLACED_S, Holdings
from mishards.reader.segments import HeldSegment, unit_bytes
from mishards.wire.placement import file_key


class FakeMembership:
    epoch = 1

    def of(self, role: str, *, draining: bool = False) -> tuple[()]:
        return ()

    def on_change(self, callback: Any) -> None:
        pass


class FakePlacement:
    """Everything belongs to this node but what is `elsewhere`."""

    def __init__(self) -> None:
        self.elsewhere: set[int] = set()
        self.manifest: Any = None

    def of(self, collection: Any, segments: Any, members: Any, fingerprint: Any) -> dict[str, tuple[str, ...]]:
        return {
            file_key(file): ("other" if file.id in self.elsewhere else "me",) for file in self.manifest.files.values()
        }

    def forget(self, collection_id: int) -> None:
        pass


class FakeIndex:
    def __init__(self, size: int) -> None:
        self.bytes = size


class Reader:
    """Holdings over a house."""

    def __init__(self, house: h.House, memory_bytes_max: int = 1 << 30) -> None:
        self.house, self.clock, self.placement = house, FakeClock(), FakePlacement()
        self.placement.manifest = house.manifest
        self.membership = FakeMembership()
        parts: list[Any] = [house.mirror, self.membership, self.placement, house.loader]
        self.holdings = Holdings("me", house.storage, *parts, memory_bytes_max, self.clock)  # type: ignore[misc]

    async def follow(self) -> bool:
        """One round over everything, as after a change of members; whether it failed."""
        self.membership.epoch += 1
        return await self.holdings._step()

    @property
    def held(self) -> tuple[int, ...]:
        return self.holdings.segments().get(1, ())


def indexed(house: h.House, key: int, size: int) -> Any:
    """A segment with one row and an index of that size."""
    part = Part(kind="index", path=f"i/{key}", bytes=size, field_id=h.VECTOR)
    record = house.add(FileKind.SEGMENT, 1, None, parts=(part,))
    content = [(row, 1) for row in h.rows([key])]
    house.loader.segments[record.id] = h.segment(record, content, indexes={7: FakeIndex(size)})
    return record


async def test_what_is_placed_here_is_loaded_ahead_and_told() -> None:
    """A long poll that waits is answered as soon as a segment is ready."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1])])
    reader = Reader(house)
    first = await reader.holdings.ready(0, 60, 0)
    waiting = asyncio.create_task(reader.holdings.ready(first.epoch, 60, 0))

    assert not await reader.follow()

    state = await waiting
    assert state.epoch > first.epoch
    assert state.files == {1: (flushed.id,)}
    assert state.applied == {1: 1}


async def test_a_commit_of_rows_is_followed_by_itself() -> None:
    """Its rows are held with the next round, in which no other collection is looked at, nor any segment."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1])])
    reader = Reader(house)
    await reader.follow()
    reader.placement.elsewhere.add(flushed.id)
    fresh = house.write(h.rows([2]))

    house.mirror.on_change(reader.holdings.note)
    house.mirror.changed()
    await reader.holdings._step()

    hosted = reader.holdings.hosted(house.manifest.collection.id)
    assert hosted.holds(fresh)
    assert hosted.unplaced_since == {}


async def test_a_poll_that_nothing_ends_is_answered_after_its_time() -> None:
    """With the state as it is."""
    reader = Reader(h.House())

    state = await reader.holdings.ready(1, 0.0, 3)

    assert (state.epoch, state.in_flight) == (1, 3)


async def test_a_segment_that_cannot_be_loaded_holds_up_no_other() -> None:
    """The rest is loaded; the failed one is tried again."""
    house = h.House()
    files = [house.flush([(row, 1) for row in h.rows([key])]) for key in (1, 2, 3)]
    broken = house.loader.segments.pop(files[0].id)
    reader = Reader(house)

    assert await reader.follow()
    assert set(reader.held) == {files[1].id, files[2].id}

    house.loader.segments[files[0].id] = broken
    assert not await reader.follow()
    assert set(reader.held) == {file.id for file in files}


async def test_a_file_placed_elsewhere_is_kept_for_a_while() -> None:
    """Until the new owner surely has it."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1])])
    reader = Reader(house)
    await reader.follow()

    reader.placement.elsewhere = {flushed.id}
    await reader.follow()
    reader.clock.advance(KEEP_UNPLACED_S - 1)
    await reader.follow()
    assert reader.held == (flushed.id,)

    reader.clock.advance(2)
    await reader.follow()
    assert reader.held == ()


async def test_a_file_loaded_on_demand_much_later_gets_its_own_while() -> None:
    """Having been unplaced here long ago does not shorten it."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1])])
    reader = Reader(house)
    await reader.follow()
    reader.placement.elsewhere = {flushed.id}
    await reader.follow()
    hosted = reader.holdings.hosted(house.manifest.collection.id)
    hosted.drop([flushed.id])  # pushed out by others
    reader.clock.advance(10 * KEEP_UNPLACED_S)
    await reader.follow()

    await reader.holdings.load(hosted, [flushed])
    await reader.follow()

    assert reader.held == (flushed.id,)


async def test_a_released_collection_is_let_go() -> None:
    """Its memory is free in the next round, and proxies are told."""
    house = h.House()
    house.flush([(row, 1) for row in h.rows([1])])
    reader = Reader(house)
    await reader.follow()
    epoch = (await reader.holdings.ready(0, 0, 0)).epoch

    house.manifest.collection = h.collection(loaded=False)
    await reader.follow()

    state = await reader.holdings.ready(epoch, 60, 0)
    assert state.files == {}


async def test_a_frozen_view_is_loaded_when_asked_for() -> None:
    """Nothing of a snapshot is loaded ahead; what requests have loaded is let go some time after the last one."""
    house = h.House()
    segment = house.flush([(row, 1) for row in h.rows([1])])
    house.manifest.frozen = True
    reader = Reader(house)

    await reader.follow()
    assert house.loader.loads == []
    await reader.holdings.load(reader.holdings.hosted(house.manifest.collection.id), [segment])
    reader.clock.advance(KEEP_FROZEN_S)
    reader.holdings.hosted(house.manifest.collection.id)
    reader.clock.advance(KEEP_FROZEN_S)
    await reader.follow()
    assert reader.held == (segment.id,)
    reader.clock.advance(1.0)
    await reader.follow()
    assert reader.held == ()


async def test_nothing_is_loaded_ahead_beyond_the_memory() -> None:
    """What does not fit waits for a request (P15)."""
    house = h.House()
    for key in range(5):
        indexed(house, key, 40)
    reader = Reader(house, memory_bytes_max=100)

    await reader.follow()

    assert len(reader.held) == 2
    assert reader.holdings.bytes <= 100


async def test_a_load_on_demand_pushes_out_what_was_used_longest_ago() -> None:
    """Never what the request itself names, and no more than needed."""
    house = h.House()
    one, two, three = (indexed(house, key, 40) for key in range(3))
    reader = Reader(house, memory_bytes_max=100)
    hosted = reader.holdings.hosted(house.manifest.collection.id)
    await reader.holdings.load(hosted, [one])
    await reader.holdings.load(hosted, [two])
    hosted.sources([one], 3, 5.0)
    hosted.sources([two], 3, 6.0)

    await reader.holdings.load(hosted, [three])

    assert set(reader.held) == {two.id, three.id}


async def test_what_is_held_already_needs_no_room_a_second_time() -> None:
    """A request for a held and a missing segment pushes out nothing when the missing one fits."""
    house = h.House()
    one, two, three = (indexed(house, key, 30) for key in range(3))
    reader = Reader(house, memory_bytes_max=100)
    hosted = reader.holdings.hosted(house.manifest.collection.id)
    for each in (one, two):
        await reader.holdings.load(hosted, [each])

    await reader.holdings.load(hosted, [two, three])

    assert set(reader.held) == {one.id, two.id, three.id}


async def test_an_index_of_a_dropped_definition_answers_nothing() -> None:
    """After release, drop, create and load in one go, this reader may never have seen the collection released: an
    approximate index must not answer for an exact one (I5)."""
    house = h.House()
    old = _index(7, "HNSW")
    house.manifest.collection = h.collection(indexes=(old,))
    record = house.flush([(row, 1) for row in h.rows([1])])
    content = [(row, 1) for row in h.rows([1])]
    house.loader.segments[record.id] = h.segment(record, content, indexes={7: FakeIndex(1)})
    reader = Reader(house)
    await reader.follow()

    house.manifest.collection = h.collection(indexes=(_index(8, "FLAT"),))
    house.loader.segments[record.id] = h.segment(record, content)
    await reader.follow()

    hosted = reader.holdings.hosted(house.manifest.collection.id)
    await hosted.hold([record])
    (source,) = hosted.sources([record], 1, 0.0)
    assert source.index(8) is None


def _index(id: int, type: str, metric: str = "L2") -> Index:
    return Index(id=IndexId(id), name="vector", field_id=h.VECTOR, type=type, metric=metric)


def test_the_memory_of_unit_vectors_counts() -> None:
    """They are copies: beside the mapped file a segment then takes as much memory as its vectors."""
    house = h.House()
    record = house.flush([(row, 1) for row in h.rows([1, 2])])
    segment = house.loader.segments[record.id]
    assert segment.bytes == 0

    segment.source(1).unit_vectors(h.VECTOR)

    assert segment.bytes == np.zeros((2, h.DIM), np.float32).nbytes


def by_cosine(house: h.House, key: int, size: int) -> Any:
    """A segment without an index of a collection that is searched by cosine; its vectors have that size."""
    house.manifest.collection = h.collection(indexes=(_index(7, "FLAT", "COSINE"),))
    part = Part(kind="vectors", path=f"v/{key}", bytes=size, field_id=h.VECTOR)
    record = house.add(FileKind.SEGMENT, 1, None, parts=(part,))
    content = [(row, 1) for row in h.rows([key])]
    house.loader.segments[record.id] = h.segment(
        record, content, unit_bytes=unit_bytes(record, house.manifest.collection)
    )
    return record


async def test_unit_vectors_have_their_room_before_they_are_made() -> None:
    """Else the first searches by cosine would take all segments' copies beyond the memory (P15)."""
    house = h.House()
    for key in range(5):
        by_cosine(house, key, 40)
    reader = Reader(house, memory_bytes_max=100)

    for _ in range(3):
        await reader.follow()

    assert len(reader.held) == 2
    assert reader.holdings.bytes == 80


def test_only_cosine_without_an_index_makes_unit_vectors() -> None:
    """An index has its own copy; the other metrics need none."""
    vectors = Part(kind="vectors", path="v", bytes=40, field_id=h.VECTOR)
    index = Part(kind="index", path="i", bytes=50, field_id=h.VECTOR, index_id=IndexId(7))
    bare, covered = (h.file(1, FileKind.SEGMENT, 1, 1, parts=parts) for parts in ((vectors,), (vectors, index)))
    cosine = h.collection(indexes=(_index(7, "FLAT", "COSINE"),))

    assert unit_bytes(bare, cosine) == 40
    assert unit_bytes(covered, cosine) == 0
    assert unit_bytes(bare, h.collection(indexes=(_index(7, "FLAT", "L2"),))) == 0
    assert unit_bytes(bare, h.collection()) == 0


def test_unit_vectors_are_shared_and_go_with_the_records_that_need_them() -> None:
    """A record with an index attached shares the columns but not the copies that searches made before it came."""
    house = h.House()
    record = house.flush([(row, 1) for row in h.rows([1, 2])])
    first = house.loader.segments[record.id]
    second, indexed = (HeldSegment(record, first.columns, None, {}) for _ in range(2))

    unit = first.source(1).unit_vectors(h.VECTOR)
    assert second.source(1).unit_vectors(h.VECTOR) is unit
    assert (second.bytes, indexed.bytes) == (unit.nbytes, 0)

    del unit, first, second
    house.loader.segments.clear()
    assert len(indexed.columns._units) == 0


def test_the_memory_of_filter_results_counts() -> None:
    """One byte a row for each filter that is kept."""
    house = h.House()
    record = house.flush([(row, 1) for row in h.rows([1, 2])])
    segment = house.loader.segments[record.id]

    for number in range(20):
        segment.source(1).masks.get(number, 2, lambda start: np.ones(2 - start, np.bool_))

    assert segment.bytes == 16 * 2
