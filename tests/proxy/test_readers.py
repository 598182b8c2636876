"""What a proxy knows of its readers: readiness from one long poll each, suspicion from failures (P11, P16)."""

from __future__ import annotations

import asyncio
from typing import Any

import peers as p

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.proxy.readers import SUSPECT_S, Readers
from mishards.wire.messages import ReadyRequest, ReadyState

SEGMENT = p.segment(7)


class PolledReader:
    """A reader whose long poll is answered when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    async def ready(self, request: ReadyRequest) -> ReadyState:
        self.asked.put_nowait(request.since)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        state: ReadyState = answer
        return state

    async def tell(self, epoch: int, *files: int) -> None:
        """Answer the poll, and wait for the next one."""
        self.answers.put_nowait(ReadyState(epoch, {1: files}, {}, 0, 0))
        assert await self.asked.get() == epoch


class Watching:
    def __init__(self, *members: Any) -> None:
        self.clock = FakeClock()
        self.membership = p.FakeMembership(*members)
        self.reader = PolledReader()
        peers: Any = p.FakePeers(a=self.reader, b=PolledReader())
        membership: Any = self.membership
        self.readers = Readers(membership, peers, self.clock, switch_wait_s=30.0)

    async def __aenter__(self) -> Watching:
        await self.readers.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.readers.stop()


async def test_readiness_is_what_the_reader_last_told() -> None:
    """Each change makes a new epoch, so that cached plans are made anew."""
    async with Watching(p.member("a")) as w:
        assert await w.reader.asked.get() == 0
        assert not w.readers.any_ready(SEGMENT)

        epoch = w.readers.epoch
        await w.reader.tell(3, SEGMENT.id)
        assert w.readers.any_ready(SEGMENT)
        assert w.readers.ready_count(SEGMENT.collection_id, [SEGMENT.id]) == 1
        assert w.readers.epoch > epoch

        await w.reader.tell(4)
        assert not w.readers.any_ready(SEGMENT)


async def test_a_poll_without_news_changes_nothing() -> None:
    """Plans stay cached while nothing moves."""
    async with Watching(p.member("a")) as w:
        await w.reader.asked.get()
        await w.reader.tell(3, SEGMENT.id)
        epoch = w.readers.epoch

        await w.reader.tell(3, SEGMENT.id)

        assert w.readers.epoch == epoch


async def test_a_lost_reader_has_nothing_ready_and_is_avoided() -> None:
    """Until it answers again; then it is asked for everything."""
    async with Watching(p.member("a"), p.member("b")) as w:
        await w.reader.asked.get()
        await w.reader.tell(3, SEGMENT.id)

        w.reader.answers.put_nowait(MishardsError(Kind.PEER_LOST, "gone"))
        assert await w.reader.asked.get() == 0  # asked from the beginning
        assert w.readers.usable() == ["b"]
        assert not w.readers.any_ready(SEGMENT)

        await w.reader.tell(1, SEGMENT.id)
        assert w.readers.usable() == ["a", "b"]


async def test_a_reader_that_starts_anew_is_known_anew() -> None:
    """What the earlier incarnation had ready is forgotten, and so is a member that left."""
    async with Watching(p.member("a", incarnation="1")) as w:
        await w.reader.asked.get()
        await w.reader.tell(3, SEGMENT.id)

        w.membership.set(p.member("a", incarnation="2"))
        assert await w.reader.asked.get() == 0
        assert not w.readers.is_ready(p.member("a").id, SEGMENT)

        await w.reader.tell(1, SEGMENT.id)
        w.membership.set()
        assert not w.readers.is_ready(p.member("a").id, SEGMENT)
        assert w.readers.usable() == []


async def test_a_reader_whose_poll_failed_is_suspect_until_one_succeeds() -> None:
    """Time alone does not clear it, nor does a part that fails meanwhile; an answer does at once."""
    async with Watching(p.member("a"), p.member("b")) as w:
        await w.reader.asked.get()
        w.reader.answers.put_nowait(MishardsError(Kind.PEER_LOST, "gone"))
        assert await w.reader.asked.get() == 0

        w.readers.failed(p.member("a").id)
        w.clock.advance(100 * SUSPECT_S)
        assert w.readers.usable() == ["b"]

        await w.reader.tell(1)
        assert w.readers.usable() == ["a", "b"]


async def test_of_a_reader_that_left_nothing_is_kept() -> None:
    """Names are new with each process, so that what is kept would grow for ever."""
    async with Watching(p.member("a")) as w:
        await w.reader.asked.get()
        await w.reader.tell(3, SEGMENT.id)
        w.readers.sent(p.member("a").id)
        w.readers.failed(p.member("a").id)

        w.membership.set()
        w.readers.answered(p.member("a").id)

        assert w.readers._ready == w.readers._suspect_until == w.readers._in_flight == w.readers._watchers == {}


async def test_suspicion_passes_with_time() -> None:
    """And a suspect is better than nobody."""
    w = Watching(p.member("a"), p.member("b"))
    w.readers.failed(p.member("a").id)

    assert w.readers.usable() == ["b"]
    assert w.readers.usable(excluded=["b"]) == ["a"]  # type: ignore[list-item]
    w.clock.advance(SUSPECT_S + 0.1)
    assert w.readers.usable() == ["a", "b"]


async def test_a_segment_that_nobody_gets_ready_is_used_in_the_end() -> None:
    """Waiting for it is bounded (P11)."""
    w = Watching(p.member("a"))
    assert not w.readers.any_ready(SEGMENT)

    w.clock.advance(29)
    assert not w.readers.any_ready(SEGMENT)
    w.clock.advance(2)
    assert w.readers.any_ready(SEGMENT)


async def test_draining_readers_still_answer() -> None:
    """They are asked until they are gone."""
    w = Watching(p.member("a", state="draining"))

    assert w.readers.usable() == ["a"]


async def test_a_defect_of_a_reader_does_not_end_the_watching() -> None:
    """Whatever a poll raises, the next one is sent."""
    async with Watching(p.member("a")) as w:
        await w.reader.asked.get()
        w.reader.answers.put_nowait(RuntimeError("a defect"))

        async with asyncio.timeout(2):
            assert await w.reader.asked.get() == 0
