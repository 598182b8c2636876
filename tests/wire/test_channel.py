"""Both ends of the wire over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import Member, NodeId
from mishards.wire import messages as m
from mishards.wire.channel import RECONNECT_PAUSE_S, Channel
from mishards.wire.frames import CODECS_BY_NAME, FrameKind, encode_frame
from mishards.wire.peers import Peers
from mishards.wire.serving import WireServer


class StubReader:
    """Answers a query by its filter: "wait" until released, "fail", "refuse", "big", or at once."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self.cancelled = asyncio.Semaphore(0)

    async def query(self, request: m.QueryPart) -> m.QueryRows:
        if request.filter == "wait":
            self.waiting.release()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.release()
                raise
        if request.filter == "fail":
            raise ValueError("boom")
        if request.filter == "refuse":
            raise MishardsError(Kind.NOT_LOADED, "file 3 is not loaded", "3")
        size = 2_000 if request.filter == "big" else 0
        return m.QueryRows(memoryview(bytes(size)), request.version, 0, 0)

    def search_at_once(self, request: m.SearchPart) -> m.SearchHits | None:
        """By its filter: None for "later", a failure for "refuse" and "fail", or the answer."""
        if request.filter == "later":
            return None
        if request.filter == "fail":
            raise ValueError("boom")
        if request.filter == "refuse":
            raise MishardsError(Kind.PARAMETER_INVALID, "no such field")
        return self._hits(request, covered=1)

    async def search(self, request: m.SearchPart) -> m.SearchHits:
        return self._hits(request, covered=2)

    def _hits(self, request: m.SearchPart, covered: int) -> m.SearchHits:
        none = memoryview(b"")
        return m.SearchHits(none, none, none, [], none, none, none, covered, request.version)


class Wire:
    """A server with a stub reader, and a channel to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.reader = StubReader()
        self.server = WireServer({"reader": self.reader}, self.clock, requests_max=20)
        self.address = ""
        self.channel = Channel("tcp://127.0.0.1:1", self.clock)

    async def start(self) -> None:
        self.address = await self.server.start("127.0.0.1", 0)
        self.channel = Channel(self.address, self.clock)

    async def query(self, filter: str = "", number: int = 0, deadline_s: float = 10.0) -> m.QueryRows:
        reply: m.QueryRows = await self.channel.call("reader.query", m.QueryPart(1, number, (), filter), deadline_s)
        return reply

    async def fails(self, filter: str, deadline_s: float = 10.0) -> MishardsError:
        with pytest.raises(MishardsError) as raised:
            await self.query(filter, deadline_s=deadline_s)
        return raised.value


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    await wire.start()
    yield wire
    wire.channel.close()
    await wire.server.stop(0)


async def test_answers_come_in_any_order(wire: Wire) -> None:
    """A slow request does not hold up the others on its connection."""
    slow = asyncio.create_task(wire.query("wait", 99))
    await wire.reader.waiting.acquire()

    replies = await asyncio.gather(*(wire.query("", number) for number in range(10)))

    assert [reply.count for reply in replies] == list(range(10))
    assert not slow.done()
    wire.reader.release.set()
    assert (await slow).count == 99


async def test_errors_arrive_as_they_were_raised(wire: Wire) -> None:
    """A MishardsError arrives with kind, message and detail; any other exception as INTERNAL that names it."""
    refused = await wire.fails("refuse")
    failed = await wire.fails("fail")

    assert (refused.kind, refused.message, refused.detail) == (Kind.NOT_LOADED, "file 3 is not loaded", "3")
    assert failed.kind is Kind.INTERNAL
    assert "reader.query failed: ValueError: boom (incident " in failed.message


@pytest.mark.parametrize(("filter", "covered"), [("", 1), ("later", 2)])
async def test_what_can_be_answered_at_once_is(wire: Wire, filter: str, covered: int) -> None:
    """Without a task of its own; what cannot is served as any other request (P18)."""
    request = m.SearchPart(1, 7, (), 1, memoryview(b""), 0, 10, "L2", filter=filter)

    answer = await wire.channel.call("reader.search", request, 10.0)

    assert (answer.covered, answer.in_flight) == (covered, 7)


@pytest.mark.parametrize(("filter", "kind"), [("refuse", Kind.PARAMETER_INVALID), ("fail", Kind.INTERNAL)])
async def test_failures_at_once_arrive_as_others_do(wire: Wire, filter: str, kind: Kind) -> None:
    """And the connection lives on."""
    request = m.SearchPart(1, 7, (), 1, memoryview(b""), 0, 10, "L2", filter=filter)

    with pytest.raises(MishardsError) as raised:
        await wire.channel.call("reader.search", request, 10.0)

    assert raised.value.kind is kind
    assert (await wire.query("", 3)).count == 3


async def test_cancelling_a_call_cancels_the_request(wire: Wire) -> None:
    """The peer stops working on a request whose caller was cancelled, and the connection lives on."""
    call = asyncio.create_task(wire.query("wait"))
    await wire.reader.waiting.acquire()

    call.cancel()

    await wire.reader.cancelled.acquire()
    assert (await wire.query("", 3)).count == 3


async def test_a_deadline_ends_both_ends(wire: Wire) -> None:
    """A call ends with DEADLINE after its time, and the peer stops working on it."""
    error = await wire.fails("wait", deadline_s=0.02)

    assert error.kind is Kind.DEADLINE
    await wire.reader.cancelled.acquire()


async def test_a_server_enforces_the_deadline_itself(wire: Wire) -> None:
    """A request whose caller does not cancel it is ended by the deadline in its frame."""
    host, port = wire.address.removeprefix("tcp://").split(":")
    incoming, outgoing = await asyncio.open_connection(host, int(port))
    number = CODECS_BY_NAME["reader.query"].method.number
    outgoing.write(encode_frame(FrameKind.REQUEST, number, 1, m.QueryPart(1, 0, (), "wait"), deadline_s=0.01))

    answer = await incoming.read(1000)

    assert b"DEADLINE" in answer
    outgoing.close()
    await outgoing.wait_closed()


async def test_a_lost_peer_fails_the_calls_in_flight(wire: Wire) -> None:
    """Calls in flight fail with PEER_LOST when the connection breaks; a later call connects again."""
    call = asyncio.create_task(wire.query("wait"))
    await wire.reader.waiting.acquire()

    await wire.server.stop(0)

    with pytest.raises(MishardsError) as lost:
        await call
    assert lost.value.kind is Kind.PEER_LOST
    assert (await wire.fails("")).kind is Kind.PEER_LOST
    wire.server = WireServer({"reader": wire.reader}, wire.clock)
    await wire.server.start("127.0.0.1", int(wire.address.rsplit(":", 1)[1]))
    assert (await wire.fails("")).kind is Kind.PEER_LOST  # the pause after a failed attempt
    wire.clock.advance(RECONNECT_PAUSE_S)
    assert (await wire.query("", 5)).count == 5


async def test_a_lost_caller_cancels_its_requests(wire: Wire) -> None:
    """The requests of a caller that is gone are cancelled."""
    call = asyncio.create_task(wire.query("wait"))
    await wire.reader.waiting.acquire()

    wire.channel.close()

    await wire.reader.cancelled.acquire()
    with pytest.raises(MishardsError) as lost:
        await call
    assert lost.value.kind is Kind.PEER_LOST


async def test_a_stopping_server_finishes_what_it_began(wire: Wire) -> None:
    """Within the grace a stopping server answers what is in progress and refuses what is new."""
    call = asyncio.create_task(wire.query("wait", 4))
    await wire.reader.waiting.acquire()

    stopping = asyncio.create_task(wire.server.stop(10))
    refused = await wire.fails("")
    wire.reader.release.set()

    assert refused.kind is Kind.UNAVAILABLE
    assert (await call).count == 4
    await stopping


async def test_requests_above_the_limit_are_refused(wire: Wire) -> None:
    """One connection holds a limited number of requests; one more is refused with RATE_LIMIT."""
    calls = [asyncio.create_task(wire.query("wait")) for _ in range(20)]
    for _ in calls:
        await wire.reader.waiting.acquire()

    refused = await wire.fails("")

    assert refused.kind is Kind.RATE_LIMIT
    assert "the limit is 20" in refused.message
    wire.reader.release.set()
    await asyncio.gather(*calls)


async def test_a_reply_above_the_limit_is_an_error_and_nothing_else_breaks(wire: Wire) -> None:
    """A reply that is too large is answered with PARAMETER_TOO_LARGE; a request that is too large never leaves."""
    server = WireServer({"reader": wire.reader}, wire.clock, body_bytes_max=1_000)
    channel = Channel(await server.start("127.0.0.1", 0), wire.clock, body_bytes_max=1_000)

    for filter in ("big", "x" * 2_000):
        with pytest.raises(MishardsError) as raised:
            await channel.call("reader.query", m.QueryPart(1, 0, (), filter), 10)
        assert raised.value.kind is Kind.PARAMETER_TOO_LARGE
    assert (await channel.call("reader.query", m.QueryPart(1, 6, ()), 10)).count == 6

    channel.close()
    await server.stop(0)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, bytes(encode_frame(FrameKind.REPLY, 1, 1))]
)
async def test_garbage_closes_only_its_own_connection(wire: Wire, garbage: bytes) -> None:
    """Bytes that are no requests close their connection; others go on."""
    await wire.query()
    host, port = wire.address.removeprefix("tcp://").split(":")
    incoming, outgoing = await asyncio.open_connection(host, int(port))

    outgoing.write(garbage)

    with contextlib.suppress(ConnectionResetError):  # what the kernel makes of bytes that nobody read
        assert await incoming.read(100) == b""
    outgoing.close()
    assert (await wire.query("", 8)).count == 8


async def test_unknown_methods_and_services_are_refused(wire: Wire) -> None:
    """A node without the role says so, and an unreadable body is the caller's fault."""
    with pytest.raises(MishardsError, match="no writer") as missing:
        await wire.channel.call("writer.flush", m.FlushRequest(1), 10)
    with pytest.raises(MishardsError, match="unreadable query request") as unreadable:
        await wire.channel.call("reader.query", ["not", "a", "part"], 10)

    assert missing.value.kind is Kind.UNAVAILABLE
    assert unreadable.value.kind is Kind.PARAMETER_INVALID


async def test_unix_sockets_serve_as_well(wire: Wire, tmp_path: Path) -> None:
    """The same server answers on a unix socket."""
    channel = Channel(await wire.server.start_unix(str(tmp_path / "wire")), wire.clock)

    assert (await channel.call("reader.query", m.QueryPart(1, 2, ()), 10)).count == 2
    channel.close()


async def test_an_address_that_is_none_is_a_lost_peer(wire: Wire) -> None:
    """A member with a broken address fails its calls like one that is gone."""
    with pytest.raises(MishardsError, match="neither tcp") as raised:
        await Channel("http://nowhere", wire.clock).call("reader.query", m.QueryPart(1, 2, ()), 10)

    assert raised.value.kind is Kind.PEER_LOST


async def test_peers_are_local_or_remote(wire: Wire) -> None:
    """This process' own services are called directly, others over one channel, closed when the member vanishes."""
    own = StubReader()
    peers = Peers(wire.clock, {"reader": own}, NodeId("a"))
    me = Member(id=NodeId("a"), roles=("reader",), address="tcp://127.0.0.1:1")
    other = Member(id=NodeId("b"), roles=("reader",), address=wire.address)

    assert peers.reader(me) is own
    with pytest.raises(MishardsError, match="no writer"):
        peers.writer(me)
    reader = peers.reader(other)
    assert (await reader.query(m.QueryPart(1, 2, ()))).count == 2
    peers.keep([me, other])
    assert peers.reader(other) is reader

    peers.keep([me])

    with pytest.raises(MishardsError, match="channel closed"):
        await reader.query(m.QueryPart(1, 2, ()))
    peers.close()
