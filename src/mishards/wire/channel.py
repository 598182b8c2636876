"""The asking end of the wire: one connection to one address, shared by every call, made when it is first needed.

A lost connection fails the calls in flight with PEER_LOST and is made again by the next call. Nothing is retried here:
whether a call may be repeated is the caller's knowledge (P17).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.wire.connection import Connection
from mishards.wire.deadlines import Deadlines
from mishards.wire.frames import CODECS, CODECS_BY_NAME, FRAME_BYTES_MAX, Frame, FrameKind, decode_error, encode_frame

CONNECT_S_MAX = 2.0
RECONNECT_PAUSE_S = 0.1  # after a failed attempt calls fail at once for so long, instead of each trying again
REQUEST_IDS = 1 << 32


class Channel:
    """Calls to the process at `address` (tcp://host:port or unix:///path). Owned by one event loop."""

    def __init__(self, address: str, clock: Clock, *, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.address = address
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._failed: tuple[float, str] | None = None  # when the last attempt failed, and why
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._deadlines = Deadlines()
        self._last_id = 0
        self._closed = False

    async def call(self, method: str, request: Any, deadline_s: float) -> Any:
        """The reply of `method` ("reader.search"), or the error that the peer raised.

        PEER_LOST: not reachable, or lost on the way (the peer may have acted); DEADLINE: no answer within `deadline_s`.
        When the call ends without an answer, by its deadline or by cancellation, the peer is told to stop."""
        loop = asyncio.get_running_loop()
        number = CODECS_BY_NAME[method].method.number
        late = partial(self._late, method, deadline_s)
        ends_s = loop.time() + deadline_s
        connection = self._connection
        if connection is None or connection.clogged:
            connection = await self._waited_for(deadline_s, late)
        request_id = self._next_id()
        left_s = ends_s - loop.time()
        frame = encode_frame(
            FrameKind.REQUEST, number, request_id, request, deadline_s=left_s, body_bytes_max=self._body_bytes_max
        )
        answer: asyncio.Future[Any] = loop.create_future()
        self._pending[request_id] = answer
        self._deadlines.add(answer, ends_s, late)
        connection.send(frame)
        try:
            return await answer
        finally:
            self._deadlines.remove(answer)
            if self._pending.pop(request_id, None) is not None:  # nobody answered
                connection.send(encode_frame(FrameKind.CANCEL, number, request_id))

    def close(self) -> None:
        """Fail the calls in flight and every later one with PEER_LOST."""
        self._closed = True
        self._deadlines.close()
        if self._connection is not None:
            self._lose(self._connection, "channel closed")

    def _next_id(self) -> int:
        self._last_id = (self._last_id + 1) % REQUEST_IDS
        return self._last_id

    def _late(self, method: str, deadline_s: float) -> MishardsError:
        return MishardsError(Kind.DEADLINE, f"no answer from {self.address} to {method} within {deadline_s:g} s")

    # ------------------------------------------------------------------------------------------------ connection

    async def _waited_for(self, wait_s: float, late: Callable[[], MishardsError]) -> Connection:
        """The connection, made if need be, as soon as it takes frames."""
        try:
            async with asyncio.timeout(wait_s):
                connection = self._connection or await self._connect()
                await connection.writable()
        except TimeoutError as error:
            raise late() from error
        if connection is not self._connection:
            raise self._lost("connection closed")
        return connection

    async def _connect(self) -> Connection:
        async with self._connecting:
            if self._connection is not None:  # made by the call before
                return self._connection
            self._check_open()
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    connection = await open_connection(self.address, self._new_connection)
            except (OSError, TimeoutError, ValueError) as error:
                reason = str(error) or f"no connection within {CONNECT_S_MAX:g} s"
                self._failed = (self._clock.monotonic_s(), reason)
                raise self._lost(reason) from error
            if self._closed:
                connection.abort("channel closed")
                raise self._lost("channel closed")
            if not connection.alive:
                raise self._lost("connection closed at once")
            self._failed = None
            self._connection = connection
            return connection

    def _check_open(self) -> None:
        if self._closed:
            raise self._lost("channel closed")
        if self._failed is not None and self._clock.monotonic_s() - self._failed[0] < RECONNECT_PAUSE_S:
            raise self._lost(self._failed[1])

    def _new_connection(self) -> Connection:
        return Connection(self._on_frame, self._lose, self._body_bytes_max)

    def _on_frame(self, connection: Connection, frame: Frame) -> None:
        answer = self._pending.pop(frame.request_id, None)
        if answer is None or answer.done():
            return  # it came after the deadline or the cancellation
        try:
            if frame.kind == FrameKind.ERROR:
                answer.set_exception(decode_error(frame.body))
            else:
                answer.set_result(CODECS[frame.method].reply.decode(frame.body))
        except (msgspec.DecodeError, KeyError) as error:
            answer.set_exception(MishardsError(Kind.INTERNAL, f"unreadable answer from {self.address}: {error}"))

    def _lose(self, connection: Connection, reason: str) -> None:
        connection.abort(reason)
        if connection is not self._connection:
            return
        self._connection = None
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(self._lost(reason))

    def _lost(self, reason: str) -> MishardsError:
        return MishardsError(Kind.PEER_LOST, f"peer {self.address} lost: {reason}", detail=self.address)


async def open_connection(address: str, factory: Any) -> Connection:
    """A connection to a wire address. OSError when nobody listens there, ValueError when it is no wire address."""
    loop = asyncio.get_running_loop()
    url = urlsplit(address)
    connection: Connection
    if url.scheme == "unix":
        _, connection = await loop.create_unix_connection(factory, url.path)
    elif url.scheme == "tcp" and url.hostname and url.port:
        _, connection = await loop.create_connection(factory, url.hostname, url.port)
    else:
        raise ValueError(f"wire address {address!r} is neither tcp://host:port nor unix:///path")
    return connection
