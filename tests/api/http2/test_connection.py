"""One HTTP/2 connection, against another's implementation of a client, and against clients that break the rules."""

from __future__ import annotations

import asyncio

import pytest
from h2.events import PingAckReceived, RemoteSettingsChanged
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import BODY_BYTES_MAX, Answer, Client

from mishards.api.http2 import frames as f
from mishards.api.http2.connection import CONNECTION_WINDOW, FRAME_BYTES_MAX, STREAMS_MAX
from mishards.api.http2.frames import ErrorCode
from mishards.api.http2.headers import HEADER_BYTES_MAX, header_block

REQUEST = header_block([(":method", "POST"), (":path", "/a"), (":scheme", "http")])
HELLO = f.PREFACE + f.settings_frame({})


async def test_requests_are_answered_on_their_streams() -> None:
    """Headers, body and trailers of each reply arrive on its request's stream, whatever the order of answers."""
    client = Client()
    streams = [client.ask(f"/{n}", b"body %d" % n, {"x": "é" * n}) for n in range(20)]

    await client.talk()

    for n, stream in enumerate(streams):
        answer = client.answers[stream]
        assert (answer.headers, answer.body) == ({":status": "200", "path": f"/{n}"}, (b"body %d" % n)[::-1])
        assert (answer.trailers, answer.ended) == ({"bytes": str(len(answer.body))}, True)
        assert client.service.seen[n]["x"] == "é" * n


async def test_a_request_may_be_headers_alone_or_end_with_trailers() -> None:
    """A request without a body has an empty one; trailers end a request as an empty frame does."""
    client = Client()
    alone = client.h2.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "here"), (":path", "/alone")]
    client.h2.send_headers(alone, fields, end_stream=True)
    client.answers[alone] = Answer()
    trailed = client.ask("/trailed", b"abc", end=False)
    client.h2.send_headers(trailed, [("checksum", "1")], end_stream=True)

    await client.talk()

    assert client.answers[alone].trailers == {"bytes": "0"}
    assert client.answers[trailed].body == b"cba"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bytes_may_be_cut_anywhere(data: st.DataObject) -> None:
    """However the network cuts what a client sends, the replies are the same."""
    bodies = data.draw(st.lists(st.binary(max_size=300), min_size=1, max_size=4))

    async def run() -> None:
        client = Client()
        streams = [client.ask(f"/{n}", body) for n, body in enumerate(bodies)]
        sent = client.h2.data_to_send()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
        for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            client.server.data_received(sent[begin:end])
        await client.talk()
        assert [client.answers[stream].body for stream in streams] == [body[::-1] for body in bodies]

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(
    window=st.integers(0, 200_000),
    grants=st.lists(st.integers(3_000, 60_000), min_size=1, max_size=5),
    sizes=st.lists(st.integers(0, 90_000), min_size=1, max_size=4),
    frame_bytes=st.sampled_from([16_384, 20_000, 1 << 20]),
)
def test_replies_keep_to_the_windows_that_the_client_grants(
    window: int, grants: list[int], sizes: list[int], frame_bytes: int
) -> None:
    """Replies larger than the windows wait, are sent as far as granted and no further, and arrive whole."""

    async def run() -> None:
        client = Client()  # the library raises when more is sent than it granted
        client.answer_data = False
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame_bytes})
        await client.talk()
        streams = [client.ask("/", bytes(range(256)) * (size // 256 + 1)) for size in sizes]
        await client.talk()
        turn = 0
        while any(not client.answers[stream].ended for stream in streams):
            grant = grants[turn % len(grants)]
            turn += 1
            client.h2.increment_flow_control_window(grant)
            for stream in streams:
                if not client.answers[stream].ended:
                    client.h2.increment_flow_control_window(grant, stream)
            await client.talk()
        for stream, size in zip(streams, sizes, strict=True):
            assert client.answers[stream].body == (bytes(range(256)) * (size // 256 + 1))[::-1]

    asyncio.run(run())


async def test_smaller_windows_hold_for_replies_under_way() -> None:
    """A client that takes back window gets nothing more until it has granted more than it took."""
    client = Client()
    client.answer_data = False
    await client.talk()
    stream = client.ask("/", b"x" * 100_000)
    await client.talk()
    first = len(client.answers[stream].body)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    client.h2.increment_flow_control_window(100_000)
    await client.talk()
    held = len(client.answers[stream].body)
    client.h2.increment_flow_control_window(200_000, stream)
    await client.talk()

    assert (first, held) == (65_535, 65_535)
    assert client.answers[stream].ended


async def test_large_bodies_are_granted_new_windows() -> None:
    """A body many times the connection's window arrives: windows grow as it is read."""
    client = Client()
    client.service.body_bytes_max = 10 * CONNECTION_WINDOW
    await client.talk()
    stream = client.ask("/count", end=False)
    left = 3 * CONNECTION_WINDOW
    while left:
        size = min(left, client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size)
        assert size > 0
        client.h2.send_data(stream, bytes(size))
        left -= size
        await client.talk()
    client.h2.end_stream(stream)
    await client.talk()

    assert client.answers[stream].trailers == {"bytes": str(3 * CONNECTION_WINDOW)}


async def test_a_body_that_is_too_large_is_refused_and_others_go_on() -> None:
    """The refusal comes before the body's end; what still comes of it is ignored."""
    client = Client()
    await client.talk()
    large = client.ask("/", b"x" * (BODY_BYTES_MAX + 1), end=False)
    await client.talk()
    other = client.ask("/", b"abc")
    await client.talk()

    assert client.answers[large].headers == {":status": "413"}
    assert client.answers[large].ended
    assert client.answers[other].body == b"cba"


async def test_withdrawn_requests_are_cancelled() -> None:
    """RST_STREAM cancels one request, the end of the connection all; their replies are not sent."""
    client = Client()
    client.service.hold = asyncio.Event()
    first, second, third = (client.ask("/", b"abc") for _ in range(3))
    await client.talk()
    client.h2.reset_stream(first)
    await client.talk()
    assert client.service.withdrawn == 1

    client.service.hold.set()
    await client.talk()
    assert [client.answers[n].ended for n in (first, second, third)] == [False, True, True]

    client.service.hold = asyncio.Event()
    client.ask("/", b"abc")
    await client.talk()
    client.server.connection_lost(None)
    await asyncio.sleep(0)
    assert client.service.withdrawn == 2
    assert client.ended == [client.server]


async def test_a_withdrawn_reply_that_waits_is_forgotten() -> None:
    """RST_STREAM of a reply that waits for window frees it; other replies use the window."""
    client = Client()
    client.answer_data = False
    await client.talk()
    waiting = client.ask("/", b"x" * 100_000)
    await client.talk()
    client.h2.reset_stream(waiting)
    client.h2.increment_flow_control_window(200_000)
    other = client.ask("/", b"abc")
    await client.talk()

    assert not client.answers[waiting].ended
    assert client.answers[other].body == b"cba"


async def test_a_failure_of_the_service_ends_its_stream_alone() -> None:
    """An exception is an INTERNAL_ERROR of that request."""
    client = Client()
    broken, other = client.ask("/broken"), client.ask("/", b"abc")

    await client.talk()

    assert client.answers[broken].reset == ErrorCode.INTERNAL_ERROR
    assert client.answers[other].body == b"cba"


async def test_requests_above_the_limit_are_refused_untouched() -> None:
    """A client that ignores the limit of streams gets REFUSED_STREAM, on which it may try again."""
    client = Client()
    client.service.hold = asyncio.Event()
    client.server.data_received(HELLO)
    flags = f.END_HEADERS | f.END_STREAM
    for n in range(STREAMS_MAX + 1):
        client.server.data_received(f.frame(f.HEADERS, flags, 2 * n + 1, REQUEST))
    await asyncio.sleep(0)

    assert client.transport.written.endswith(f.reset_frame(2 * STREAMS_MAX + 1, ErrorCode.REFUSED_STREAM))
    assert len(client.service.seen) == STREAMS_MAX
    client.server.connection_lost(None)


async def test_pings_and_settings_are_acknowledged() -> None:
    """The client learns our limits, and that we live."""
    client = Client()
    client.h2.ping(b"12345678")

    await client.talk()

    told = next(event for event in client.events if isinstance(event, RemoteSettingsChanged))
    assert told.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == STREAMS_MAX
    assert any(isinstance(event, PingAckReceived) and event.ping_data == b"12345678" for event in client.events)


async def test_one_that_goes_answers_all_that_crossed_the_news() -> None:
    """After the news requests on their way to us are answered; after the last word none begins; then it closes."""
    client = Client()
    client.service.hold = asyncio.Event()
    before = client.ask("/", b"before")
    await client.talk()
    client.server.go_away()
    crossing = client.ask("/", b"crossing")
    client.server.data_received(client.h2.data_to_send())
    news, client.transport.written = client.transport.written, b""
    assert f.goaway_frame(f.STREAM_MAX, ErrorCode.NO_ERROR) in news
    client.server.data_received(f.frame(f.PING, f.ACK, 0, b"mishards"))
    last_word, client.transport.written = client.transport.written, b""
    assert last_word == f.goaway_frame(crossing, ErrorCode.NO_ERROR)
    client.server.data_received(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, crossing + 2, REQUEST))
    assert not client.transport.closed

    client.service.hold.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    bodies = client.transport.written
    assert b"erofeb" in bodies
    assert b"gnissorc" in bodies
    assert before < crossing
    assert len(client.service.seen) == 2
    assert client.transport.closed


async def test_an_idle_one_that_goes_closes_when_its_client_knows() -> None:
    """Without requests there is nothing to wait for but the client's word that it has the news."""
    client = Client()
    await client.talk()
    client.server.go_away()
    assert not client.transport.closed

    client.server.data_received(f.frame(f.PING, f.ACK, 0, b"mishards"))

    assert client.transport.closed


async def test_a_client_that_does_not_read_is_not_read() -> None:
    """Replies that nobody takes do not pile up: reading stops until the client reads."""
    client = Client()
    client.server.pause_writing()
    assert not client.transport.reading

    client.server.resume_writing()
    assert client.transport.reading


async def test_strangers_are_told_what_the_port_speaks() -> None:
    """A browser gets a page that says so; bytes of another kind are not answered."""
    browser, noise, slow = Client(), Client(), Client()
    for client in (browser, noise, slow):
        client.transport.written = b""
    browser.server.data_received(b"GET / HTTP/1.1\r\n\r\n")
    noise.server.data_received(b"\x16\x03\x01")
    slow.server.data_received(f.PREFACE[:10])

    assert b"400 Bad Request" in browser.transport.written
    assert b"speaks gRPC" in browser.transport.written
    assert (browser.transport.closed, noise.transport.closed, slow.transport.closed) == (True, True, False)
    assert noise.transport.written == b""


def opened(number: int = 1, flags: int = f.END_HEADERS) -> bytes:
    return f.frame(f.HEADERS, flags, number, REQUEST)


BROKEN = {
    "no settings first": (f.PREFACE + f.frame(f.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "too large a frame": (HELLO + (FRAME_BYTES_MAX + 1).to_bytes(3, "big") + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
    "a stream of the server's": (HELLO + opened(2), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (HELLO + opened(0), ErrorCode.PROTOCOL_ERROR),
    "headers cut off": (HELLO + opened(1, 0) + f.frame(f.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "headers continued elsewhere": (HELLO + opened(1, 0) + f.frame(f.CONTINUATION, 0, 3), ErrorCode.PROTOCOL_ERROR),
    "continuation of nothing": (HELLO + f.frame(f.CONTINUATION, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "headers twice": (HELLO + opened() + opened(), ErrorCode.PROTOCOL_ERROR),
    "unreadable headers": (HELLO + f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "headers without end": (
        HELLO + opened(1, 0) + f.frame(f.CONTINUATION, 0, 1, bytes(HEADER_BYTES_MAX)),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "headers too large at once": (
        HELLO + f.frame(f.HEADERS, f.END_HEADERS, 1, bytes(HEADER_BYTES_MAX + 1)),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "padding beyond the frame": (
        HELLO + f.frame(f.HEADERS, f.END_HEADERS | f.PADDED, 1, b"\x05abc"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "padding without its length": (HELLO + opened() + f.frame(f.DATA, f.PADDED, 1), ErrorCode.PROTOCOL_ERROR),
    "half a priority": (
        HELLO + f.frame(f.HEADERS, f.END_HEADERS | f.WITH_PRIORITY, 1, b"abc"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "PRIORITY of 4": (HELLO + f.frame(f.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "data on stream 0": (HELLO + f.frame(f.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on a stream never opened": (HELLO + f.frame(f.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data after the end": (
        HELLO + opened(1, f.END_HEADERS | f.END_STREAM) + f.frame(f.DATA, 0, 1, b"x"),
        ErrorCode.STREAM_CLOSED,
    ),
    "reset of a stream never opened": (
        HELLO + f.reset_frame(1, ErrorCode.CANCEL),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "reset of 3 bytes": (HELLO + opened() + f.frame(f.RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "settings of 5 bytes": (HELLO + f.frame(f.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "settings of a stream": (HELLO + f.frame(f.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "too large a window": (HELLO + f.settings_frame({f.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
    "too small a frame": (HELLO + f.settings_frame({f.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
    "push neither on nor off": (HELLO + f.settings_frame({f.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "a pushed promise": (HELLO + f.frame(f.PUSH_PROMISE, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "ping of 7 bytes": (HELLO + f.frame(f.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "ping of a stream": (HELLO + f.frame(f.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "window by 0": (HELLO + f.window_frame(0, 0), ErrorCode.PROTOCOL_ERROR),
    "window of 3 bytes": (HELLO + f.frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "window of a stream never opened": (HELLO + f.window_frame(1, 5), ErrorCode.PROTOCOL_ERROR),
    "window beyond its largest": (HELLO + f.window_frame(0, f.WINDOW_MAX), ErrorCode.FLOW_CONTROL_ERROR),
    "stream window beyond its largest": (
        HELLO + opened() + f.window_frame(1, f.WINDOW_MAX),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_one_who_breaks_the_protocol_is_told_how_and_left(name: str) -> None:
    """Each way to break the protocol ends the connection with its code; nothing escapes."""
    data, code = BROKEN[name]
    client = Client()
    client.transport.written = b""
    client.server.data_received(data)

    goodbye = client.transport.written[client.transport.written.index(b"\x07\x00\x00\x00\x00\x00") - 3 :]
    assert int.from_bytes(goodbye[13:17], "big") == code
    assert client.transport.closed
    client.server.data_received(data)  # what comes later is not read
    client.server.connection_lost(None)


FRAMES = st.builds(
    f.frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 3, 5, 2]),
    st.one_of(st.binary(max_size=40), st.just(REQUEST), st.just(bytes(4)), st.just(bytes(8))),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=30), st.binary(max_size=50))
def test_whatever_comes_nothing_escapes(drawn: list[bytes], noise: bytes) -> None:
    """Frames in any order with any content, and noise, are served or end the connection; no exception leaves."""

    async def run() -> None:
        client = Client()
        client.server.data_received(HELLO)
        for one in drawn:
            client.server.data_received(one)
            await asyncio.sleep(0)
        client.server.data_received(noise)
        client.server.connection_lost(None)

    asyncio.run(run())
