"""The reader's answers: exactly the named files exactly at the version, or why not (P8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import held as h
import numpy as np
import pytest
from test_holding import FakeMembership, FakePlacement

from mishards.clock import FakeClock
from mishards.config import ReaderSettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import Collection, Delta, File, Version
from mishards.reader.node import ReaderNode
from mishards.reader.segments import HeldSegment
from mishards.segment.ipc import from_stream
from mishards.wire import messages as m
from mishards.wire.hits import buffer_of, unpack


@pytest.fixture
async def house() -> h.House:
    return h.House()


@pytest.fixture
async def node(house: h.House, tmp_path: Path) -> AsyncIterator[ReaderNode]:
    made = reader(house, tmp_path)
    await made.start()
    yield made
    await made.stop()


def reader(house: h.House, folder: Path, settings: ReaderSettings | None = None) -> ReaderNode:
    """A reader whose segments come from the house's loader."""
    placement = FakePlacement()
    placement.manifest = house.manifest
    parts: list[Any] = [house.storage, house.mirror, FakeMembership(), placement, lambda name: None]
    made = ReaderNode("me", *parts, settings or ReaderSettings(), FakeClock(), folder / "cache", 2)  # type: ignore[misc]
    made._holdings._loader = house.loader  # type: ignore[assignment]
    return made


def part(version: int, *files: int, **changes: Any) -> m.SearchPart:
    values: dict[str, Any] = {
        "collection_id": 1,
        "version": version,
        "files": files,
        "field_id": h.VECTOR,
        "queries": buffer_of(np.zeros((1, h.DIM), np.float32)),
        "nq": 1,
        "k": 10,
        "metric": "L2",
        **changes,
    }
    return m.SearchPart(**values)


def delta(manifest: Manifest, head: str) -> Delta:
    """All that the manifest has, as of the commit `head`."""
    return Delta(
        collection_id=manifest.collection.id,
        after=Version(0),
        version=manifest.version,
        ts=1,
        head=head,
        added=tuple(manifest.live()),
    )


async def found(node: ReaderNode, asked: m.SearchPart) -> list[int]:
    keys: list[int] = sorted(unpack(await node.search(asked), 0, False).keys.tolist())
    return keys


async def refusal(asked: Any) -> MishardsError:
    with pytest.raises(MishardsError) as caught:
        await asked
    return caught.value


async def test_a_part_is_answered_with_its_files_and_their_rows(house: h.House, node: ReaderNode) -> None:
    """Hits, the number of rows covered, and the output columns in the order of the hits."""
    fresh = house.write([h.Row(1, 7, (3.0, 0.0)), h.Row(2, 8, (1.0, 0.0))])
    flushed = house.flush([(h.Row(3, 9, (2.0, 0.0)), 1)])
    house.write(h.rows([4]))
    house.delete([3])

    answer = await node.search(part(3, fresh.id, flushed.id, output=(h.NUMBER,)))

    assert unpack(answer, 0, False).keys.tolist() == [2, 3, 1]
    assert from_stream(answer.rows).column(0).to_pylist() == [8, 9, 7]
    assert answer.covered == 3
    assert unpack(await node.search(part(4, fresh.id, flushed.id)), 0, False).keys.tolist() == [2, 1]


async def test_a_version_not_yet_seen_is_looked_for(house: h.House, node: ReaderNode) -> None:
    """The metadata service is asked once; a version that it does not have either is NOT_CAUGHT_UP."""
    fresh = house.write(h.rows([1]))
    house.mirror.news = lambda: house.delete([1]) and None

    assert unpack(await node.search(part(2, fresh.id)), 0, False).keys.tolist() == []

    house.mirror.news = lambda: None
    assert (await refusal(node.search(part(9, fresh.id)))).kind is Kind.NOT_CAUGHT_UP


async def test_without_the_metadata_service_a_reader_that_is_behind_says_so(house: h.House, node: ReaderNode) -> None:
    """Another reader may have heard the push that this one missed, or the proxy itself: it must be told to ask that
    reader, and how far this one is (P8, I17)."""
    fresh = house.write(h.rows([1]))
    house.mirror.failure = MishardsError(Kind.METADATA_UNAVAILABLE, "down")

    behind = await refusal(node.search(part(2, fresh.id)))

    assert (behind.kind, behind.detail) == (Kind.NOT_CAUGHT_UP, "1")


async def test_a_version_of_another_chain_is_not_answered_from_this_one(house: h.House, node: ReaderNode) -> None:
    """The metadata service has lost a delete and has got another one under the same number. Who
    asks for the new commit gets its rows, from a reader that had seen the lost one; who asks for the lost one is told
    so, whether the reader has heard of the new chain or not."""
    fresh = house.write(h.rows([1, 2, 3]))
    house.delete([1])
    house.manifest.load(delta(house.manifest, "lost"))
    assert await found(node, part(2, fresh.id, head="lost")) == [2, 3]
    other = h.House()
    other.mirror, other.manifest = house.mirror, Manifest(h.collection())
    other._last_id = 20
    other.manifest.put(fresh)
    other.manifest.version = Version(1)
    other.delete([2])
    other.manifest.load(delta(other.manifest, "new"))

    house.mirror.failure = MishardsError(Kind.METADATA_UNAVAILABLE, "down")
    assert (await refusal(node.search(part(2, fresh.id, head="new")))).kind is Kind.NOT_CAUGHT_UP
    house.mirror.failure, house.mirror.news = None, lambda: house.mirror.put(other.manifest)

    assert await found(node, part(2, fresh.id, head="new")) == [1, 3]
    gone = await refusal(node.search(part(2, fresh.id, head="lost")))
    assert (gone.kind, gone.message) == (Kind.GONE, "commit lost of version 2 is lost")
    assert (await refusal(node.query(m.QueryPart(1, 2, (fresh.id,), head="lost")))).kind is Kind.GONE


async def test_a_commit_that_the_reader_never_heard_of_is_looked_up(house: h.House, node: ReaderNode) -> None:
    """A reader that has caught up over very many commits at once does not know whether those in between are of the lost
    chain: the metadata service does. While that is down it says that it does not know: a mixture is no answer."""
    fresh = house.write(h.rows([1, 2, 3]))
    house.delete([1])
    house.delete([2])
    house.manifest.load(delta(house.manifest, "newest"))
    house.mirror.chain = {"second": 2}

    assert await found(node, part(2, fresh.id, head="second")) == [2, 3]
    assert (await refusal(node.search(part(2, fresh.id, head="lost")))).kind is Kind.GONE
    assert await found(node, part(2, fresh.id, head="second")) == [2, 3]
    house.mirror.failure = MishardsError(Kind.METADATA_UNAVAILABLE, "down")
    assert await found(node, part(2, fresh.id, head="second")) == [2, 3]
    unknown = await refusal(node.search(part(1, fresh.id, head="first")))
    assert (unknown.kind, unknown.message) == (Kind.NOT_CAUGHT_UP, "commit first of version 1 is not known here")


async def test_a_file_that_is_not_known_is_gone(house: h.House, node: ReaderNode) -> None:
    """Nothing stands in for it."""
    house.write(h.rows([1]))

    assert (await refusal(node.search(part(1, 99)))).kind is Kind.GONE
    assert (await refusal(node.query(m.QueryPart(1, 1, (99,))))).kind is Kind.GONE


class Forgetful(h.FakeLoader):
    """While a segment is loaded, it and the tombstones that concern it are forgotten: they were removed long ago."""

    house: h.House
    node: ReaderNode

    async def load(self, record: File, collection: Collection) -> HeldSegment:
        loaded = await super().load(record, collection)
        await asyncio.sleep(0)
        for id in list(self.house.manifest.files):
            del self.house.manifest.files[id]
        for hosted in self.node._holdings._hosted.values():
            hosted.forget_vanished()
        return loaded


async def test_what_is_forgotten_while_it_is_loaded_is_gone(tmp_path: Path) -> None:
    """Its deletes may be forgotten already: no row of it may come back (I11)."""
    loader = Forgetful()
    loader.house = house = h.House(loader=loader)
    loader.node = node = reader(house, tmp_path)
    flushed = house.flush([(h.Row(1, 7, (1.0, 0.0)), 1), (h.Row(2, 7, (1.0, 0.0)), 1)])
    house.delete([1])

    assert (await refusal(node.search(part(2, flushed.id)))).kind is Kind.GONE

    await node.stop()


async def test_a_segment_gone_from_storage_is_gone(house: h.House, node: ReaderNode) -> None:
    """The proxy plans again, since the collector was faster than this reader."""
    flushed = house.flush([(row, 1) for row in h.rows([1])])
    house.loader.segments.clear()
    house.loader.failure = MishardsError(Kind.GONE, "no such object")

    assert (await refusal(node.search(part(1, flushed.id)))).kind is Kind.GONE


@pytest.mark.parametrize("change", [{"loaded": False}, None])
async def test_a_collection_that_is_not_loaded_is_refused(
    house: h.House, node: ReaderNode, change: dict[str, Any] | None
) -> None:
    """Only after the metadata service has been asked."""
    fresh = house.write(h.rows([1]))
    if change is None:
        house.mirror.forget(1)
    else:
        house.manifest.collection = h.collection(**change)

    assert (await refusal(node.search(part(1, fresh.id)))).kind is Kind.NOT_LOADED
    assert house.mirror.refreshed == 1


async def test_counts_and_rows_are_those_of_the_version(house: h.House, node: ReaderNode) -> None:
    """A query at an older version sees what was deleted since."""
    fresh = house.write(h.rows([1, 2, 3]))
    house.delete([2])

    for version, keys in ((1, [1, 2, 3]), (2, [1, 3])):
        answer = await node.query(m.QueryPart(1, version, (fresh.id,), output=(h.PK,)))
        assert from_stream(answer.rows).column(0).to_pylist() == keys
        assert (await node.query(m.QueryPart(1, version, (fresh.id,), count=True))).count == len(keys)


async def test_the_second_step_finds_the_rows_of_the_hits_on_any_reader(
    house: h.House, node: ReaderNode, tmp_path: Path
) -> None:
    """Also when the first reader is lost in between and the other one keeps the fresh rows in another order (P17)."""
    files = [house.write([h.Row(key, key, (float(key), 0.0))]) for key in range(1, 6)]
    other = reader(house, tmp_path / "other")
    await other.start()
    for each in reversed(files):
        await other.search(part(5, each.id))
    hits = unpack(await node.search(part(5, *(file.id for file in files))), 0, False)

    fetch = m.FetchPart(1, 5, buffer_of(hits.files), buffer_of(hits.positions), (h.PK,))
    answers = [from_stream((await each.fetch(fetch)).rows).column(0).to_pylist() for each in (node, other)]

    await other.stop()
    assert answers == [[1, 2, 3, 4, 5]] * 2


async def test_the_second_step_for_a_file_that_is_gone_says_so(house: h.House, node: ReaderNode) -> None:
    """GONE, as in the first step."""
    house.write(h.rows([1]))
    places = buffer_of(np.array([99], np.int64))

    assert (await refusal(node.fetch(m.FetchPart(1, 1, places, places, (h.PK,))))).kind is Kind.GONE


async def test_beyond_its_limit_a_reader_refuses(house: h.House, tmp_path: Path) -> None:
    """Requests in progress are bounded (P15); what ends makes room."""
    node = reader(house, tmp_path, ReaderSettings(in_flight_max=1))
    fresh = house.write(h.rows([1]))
    go_on = asyncio.Event()
    payloads = house.mirror.payloads

    async def slow(files: Any) -> Any:
        await go_on.wait()
        return await payloads(files)

    house.mirror.payloads = slow  # type: ignore[method-assign]
    first = asyncio.create_task(node.search(part(1, fresh.id)))
    await asyncio.sleep(0)

    assert (await refusal(node.search(part(1, fresh.id)))).kind is Kind.RATE_LIMIT
    go_on.set()
    await first
    assert node.in_flight == 0
    await node.search(part(1, fresh.id))
    await node.stop()


async def test_a_part_ends_at_its_deadline(house: h.House, node: ReaderNode) -> None:
    """DEADLINE, whatever it waits for, and it no longer counts."""
    fresh = house.write(h.rows([1]))

    async def never(files: Any) -> Any:
        await asyncio.Event().wait()

    house.mirror.payloads = never  # type: ignore[method-assign]

    assert (await refusal(node.search(part(1, fresh.id, deadline_s=0.01)))).kind is Kind.DEADLINE
    assert node.in_flight == 0


async def test_a_reader_that_has_stopped_sends_its_callers_elsewhere(house: h.House, tmp_path: Path) -> None:
    """Requests that still reach it fail with an error that the proxy answers by asking another reader."""
    node = reader(house, tmp_path)
    await node.start()
    fresh = house.write(h.rows([1]))
    await node.query(m.QueryPart(1, 1, (fresh.id,), count=True))
    await node.stop()

    assert (await refusal(node.query(m.QueryPart(1, 1, (fresh.id,), count=True)))).kind is Kind.UNAVAILABLE
