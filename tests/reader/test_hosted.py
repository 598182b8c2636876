"""What a reader holds of a collection: exact at every version up to the one applied (P8, P9, I11)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import held as h
import pytest

from mishards.errors import Kind, MishardsError
from mishards.model import File
from mishards.reader.hosted import MANY_KEYS
from mishards.segment.fresh import Tombstones


async def keys_at(hosted: Any, files: list[File], version: int) -> list[h.Key]:
    return h.alive(hosted.sources(files, version, 0.0))


async def test_rows_and_segments_die_at_the_version_of_their_tombstones() -> None:
    """Whether the files were held before the tombstones were applied or after."""
    house = h.House()
    fresh = house.write(h.rows([1, 2, 3]))
    flushed = house.flush([(row, 1) for row in h.rows([10, 11])])
    before, after = house.hosted(), house.hosted()
    await before.hold([fresh, flushed])
    house.delete([2, 11])

    for hosted in (before, after):
        await hosted.advance()
    await after.hold([fresh, flushed])

    for hosted in (before, after):
        assert hosted.applied == 3
        assert await keys_at(hosted, [fresh, flushed], 2) == [1, 2, 3, 10, 11]
        assert await keys_at(hosted, [fresh, flushed], 3) == [1, 3, 10]


async def test_deletes_up_to_the_horizon_are_applied_already() -> None:
    """A segment that holds a row again after its delete keeps it (P5)."""
    house = h.House()
    house.delete([1])
    flushed = house.flush([(row, 1) for row in h.rows([1])], horizon=1)
    hosted = house.hosted()

    await hosted.advance()
    await hosted.hold([flushed])

    assert await keys_at(hosted, [flushed], 2) == [1]


@pytest.mark.parametrize("cut_after", [0, 1, 2, 3, None])
async def test_tombstones_applied_step_by_step_reach_every_file(cut_after: int | None) -> None:
    """Rows that come between the steps lose theirs too, also when the caller gives up half-way and another begins."""
    house = h.House()
    early = [house.write(h.rows(range(start, 3 * MANY_KEYS, 3))) for start in range(2)]
    late = house.write(h.rows(range(2, 3 * MANY_KEYS, 3)))
    hosted = house.hosted()
    await hosted.hold(early)
    house.delete(range(1, 3 * MANY_KEYS))

    advance = asyncio.create_task(hosted.advance())
    for _ in range(cut_after or 0):
        await asyncio.sleep(0)
    await hosted.hold([late])
    if cut_after is not None:
        advance.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await advance
    await hosted.advance()

    assert await keys_at(hosted, [*early, late], 4) == [0]
    assert len(await keys_at(hosted, [*early, late], 3)) == 3 * MANY_KEYS


async def test_what_the_mirror_has_forgotten_is_dropped() -> None:
    """Files and tombstones that no plan names any more leave the memory."""
    house = h.House()
    fresh, stone = house.write(h.rows([1])), house.delete([9])
    flushed = house.flush([(row, 1) for row in h.rows([5])])
    hosted = house.hosted()
    await hosted.advance()
    await hosted.hold([fresh, flushed])

    for gone in (fresh, stone, flushed):
        del house.manifest.files[gone.id]

    assert sorted(hosted.forget_vanished()) == sorted([fresh.id, stone.id, flushed.id])
    assert hosted.files() == []


@pytest.mark.parametrize("kind", [Kind.GONE, Kind.STORAGE_UNAVAILABLE])
async def test_a_segment_that_cannot_be_loaded_fails_with_its_own_error(kind: Kind) -> None:
    """The proxy goes elsewhere or plans again only if it is told which error it was (P8, P17)."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([5])])
    house.loader.segments.clear()
    house.loader.failure = MishardsError(kind, "cannot be had")
    hosted = house.hosted()

    with pytest.raises(MishardsError) as caught:
        await hosted.hold([flushed])
    assert caught.value.kind is kind


async def test_tombstones_that_arrive_during_a_load_are_applied() -> None:
    """A segment becomes visible only with every death applied so far."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1, 2])])
    house.delete([1])
    hosted = house.hosted()
    await hosted.advance()
    ready = house.loader.segments[flushed.id]
    started, go_on = asyncio.Event(), asyncio.Event()

    async def load(record: File, _: Any) -> Any:
        started.set()
        await go_on.wait()
        return ready

    house.loader.load = load  # type: ignore[method-assign]
    holding = asyncio.create_task(hosted.hold([flushed]))
    await started.wait()
    house.delete([2])
    await hosted.advance()
    go_on.set()
    await holding

    assert await keys_at(hosted, [flushed], 2) == [2]
    assert await keys_at(hosted, [flushed], 3) == []


async def test_two_who_want_one_segment_do_not_change_it_side_by_side() -> None:
    """Following placement and a request may load the same segment at once; its deaths are made by one thread, or a
    search in between would see deleted rows again (I11)."""
    house = h.House()
    flushed = house.flush([(row, 1) for row in h.rows([1, 2])])
    house.delete([1])
    hosted = house.hosted()
    await hosted.advance()
    busy, most, lock = [0], [0], threading.Lock()
    both = threading.Barrier(2)

    class Watched:
        """Counts how many threads work on it."""

        def __init__(self, inner: Any) -> None:
            self.file, self.source, self._inner = inner.file, inner.source, inner

        def apply(self, batch: Tombstones, version: int) -> None:
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(timeout=0.2)  # gives a second thread the time to come
            self._inner.apply(batch, version)
            with lock:
                busy[0] -= 1

    watched: Any = Watched(house.loader.segments[flushed.id])
    house.loader.segments[flushed.id] = watched

    await asyncio.gather(hosted.hold([flushed]), hosted.hold([flushed]))

    assert most[0] == 1
    assert await keys_at(hosted, [flushed], 2) == [2]


async def test_many_files_after_a_pause_do_not_hold_up_the_loop() -> None:
    """Others run between two of them; nothing is answered at the new version before all are applied."""
    house = h.House()
    fresh = [house.write(h.rows([number])) for number in range(20)]
    for number in range(20):
        house.delete([number])
    hosted = house.hosted()
    seen: list[int] = []

    async def watch() -> None:
        while hosted.applied < house.manifest.version:
            seen.append(len(hosted._tombstones.get(0, {})))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hosted.advance())
        tasks.create_task(hosted.hold(fresh))
        tasks.create_task(watch())

    assert set(range(1, 20)) <= set(seen)
    assert await keys_at(hosted, fresh, 20) == list(range(20))
    assert await keys_at(hosted, fresh, 30) == list(range(10, 20))
    assert await keys_at(hosted, fresh, 40) == []
