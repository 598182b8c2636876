"""gRPC's side of the door: what clients of any gRPC library get for calls good and bad."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import grpc
import pytest

from mishards.api.http2.listener import Listener
from mishards.api.milvus.dispatch import Dispatcher
from mishards.api.milvus.rpcs import SERVICE
from mishards.api.milvus.transport import UnaryCalls

LIMIT = 1 << 20  # of a request, by the setting
PATH = f"/{SERVICE}/Search"
POST = {":method": "POST", ":path": PATH, "content-type": "application/grpc"}


class Methods:
    """A dispatcher's outside. It sends requests back as they are, or as `response` says; `hold` them before."""

    methods = ["Search"]

    def __init__(self) -> None:
        self.seen: list[tuple[Mapping[str, str], float | None]] = []
        self.response: bytes | None = None
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.withdrawn = asyncio.Event()

    async def answer(self, method: str, payload: bytes, metadata: Mapping[str, str], timeout_s: float | None) -> bytes:
        self.seen.append((metadata, timeout_s))
        self.reached.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.withdrawn.set()
            raise
        return payload if self.response is None else self.response


class Endpoint:
    """A listening transport and a channel of grpcio to it."""

    def __init__(self, methods: Methods, calls: UnaryCalls, port: int, channel: grpc.aio.Channel) -> None:
        self.methods = methods
        self.calls = calls
        self.port = port
        self.channel = channel

    async def call(self, payload: bytes, path: str = PATH, **options: Any) -> bytes:
        return cast(bytes, await self.channel.unary_unary(path)(payload, **options))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    methods = Methods()
    calls = UnaryCalls(cast(Dispatcher, methods), LIMIT)
    listener = Listener(calls, share_port=False)
    port = await listener.start("127.0.0.1", 0)
    unlimited = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=unlimited) as channel:
        yield Endpoint(methods, calls, port, channel)
    await listener.stop(0)


@pytest.mark.parametrize("size", [0, 1, 16_384, 100_000, 4 * LIMIT - 5])
async def test_messages_of_any_size_go_both_ways(endpoint: Endpoint, size: int) -> None:
    """Bytes arrive as they were sent, larger than any frame or window."""
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)

    assert await endpoint.call(payload) == payload


async def test_many_calls_at_once_are_told_apart(endpoint: Endpoint) -> None:
    """Calls on one connection, more than it takes at once, get each its own answer."""
    payloads = [b"%d" % n * (n % 300) for n in range(3000)]

    assert await asyncio.gather(*(endpoint.call(payload) for payload in payloads)) == payloads


async def test_a_response_may_be_larger_than_any_request(endpoint: Endpoint) -> None:
    """Limits of requests do not bind responses."""
    endpoint.methods.response = b"x" * (40 << 20)

    assert len(await endpoint.call(b"")) == 40 << 20


async def test_metadata_and_deadline_reach_the_method(endpoint: Endpoint) -> None:
    """What a client says of its call is known by lower-case names; no deadline is none."""
    await endpoint.call(b"", metadata=(("identifier", "7"),), timeout=5)
    await endpoint.call(b"")

    (first, timeout_s), (_, none) = endpoint.methods.seen
    assert first["identifier"] == "7"
    assert timeout_s is not None
    assert 4 < timeout_s < 5.1  # gRPC rounds up, by a hundredth at most
    assert none is None


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_read(endpoint: Endpoint, compression: grpc.Compression) -> None:
    """Clients may compress with what gRPC libraries know."""
    payload = b"again and " * 10_000

    assert await endpoint.call(payload, compression=compression) == payload


async def test_unknown_methods_are_unimplemented(endpoint: Endpoint) -> None:
    """The refusal names the path."""
    with pytest.raises(grpc.aio.AioRpcError, match=r"method not found: /a\.B/C%D") as caught:
        await endpoint.call(b"", "/a.B/C%D")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_of_many_times_the_limit_is_refused(endpoint: Endpoint) -> None:
    """It is refused before it has all arrived, and the connection goes on."""
    with pytest.raises(grpc.aio.AioRpcError, match="larger than 4194304 bytes") as caught:
        await endpoint.call(bytes(5 * LIMIT))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await endpoint.call(b"next") == b"next"


async def test_a_call_whose_time_is_over_is_withdrawn(endpoint: Endpoint) -> None:
    """The client's deadline ends the work for it."""
    endpoint.methods.hold = asyncio.Event()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await endpoint.call(b"", timeout=0.1)

    await asyncio.wait_for(endpoint.methods.withdrawn.wait(), 5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_leaves_withdraws_its_calls(endpoint: Endpoint) -> None:
    """Nobody works for a client that is gone."""
    endpoint.methods.hold = asyncio.Event()
    call = asyncio.ensure_future(endpoint.call(b""))
    await endpoint.methods.reached.wait()
    await endpoint.channel.close()

    await asyncio.wait_for(endpoint.methods.withdrawn.wait(), 5)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call


def compressed(message: bytes) -> bytes:
    return b"\1" + len(message).to_bytes(4, "big") + message


GZIP = zlib.compressobj(wbits=31)
SMALL = GZIP.compress(b"abc") + GZIP.flush()
BOMB = zlib.compress(bytes(5 * LIMIT))
BAD = {
    "no message": ({}, b"", "13", "a body of 0 bytes is not one whole message"),
    "a message cut off": ({}, b"\0\0\0\0\5abc", "13", "a body of 8 bytes is not one whole message"),
    "two messages": ({}, b"\0\0\0\0\1a\0\0\0\0\1b", "13", "a body of 12 bytes is not one whole message"),
    "compressed by nobody": ({}, compressed(SMALL), "12", "compressed with 'identity'"),
    "compressed unknown": (
        {"grpc-encoding": "snappy"},
        compressed(SMALL),
        "12",
        "'snappy' are not",
    ),
    "compressed wrongly": ({"grpc-encoding": "deflate"}, compressed(SMALL), "13", "with deflate cannot be read"),
    "compressed cut off": ({"grpc-encoding": "gzip"}, compressed(SMALL[:-9]), "13", "with gzip is cut off"),
    "compressed bomb": ({"grpc-encoding": "deflate"}, compressed(BOMB), "8", "larger than 4194304 bytes"),
    "timeout of words": ({"grpc-timeout": "soon"}, b"\0\0\0\0\0", "13", "grpc-timeout 'soon' is not"),
    "timeout of nine digits": ({"grpc-timeout": "123456789S"}, b"\0\0\0\0\0", "13", "'123456789S' is not"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_calls_are_refused_with_the_reason(endpoint: Endpoint, name: str) -> None:
    """Each gets gRPC's code and words that say what is wrong; the method is never called."""
    extra, body, code, words = BAD[name]
    reply = await endpoint.calls.answer({**POST, **extra}, body)

    assert b"grpc-status" + bytes([len(code)]) + code.encode() in reply.headers
    assert words.encode() in reply.headers
    assert (reply.body, reply.trailers, endpoint.methods.seen) == (b"", b"", [])


async def test_what_is_no_grpc_is_another_medium(endpoint: Endpoint) -> None:
    """HTTP/2 requests of other kinds are refused with HTTP's own code."""
    page = await endpoint.calls.answer({**POST, ":method": "GET"}, b"")
    form = await endpoint.calls.answer({**POST, "content-type": "text/plain"}, b"")

    assert b":status\x03415" in page.headers
    assert page == form


async def test_browsers_are_told_what_the_port_speaks(endpoint: Endpoint) -> None:
    """HTTP/1.1 gets a sentence a person can read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    page = await reader.read()
    writer.close()

    assert page.endswith(b"connect with a Milvus client.\n")
