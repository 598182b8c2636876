"""One kept-alive connection between two processes: frames in, frames out. Both ends of the wire are built on it.

A frame leaves at once, in a system call of its own. Gathering those of one turn of the event loop would spare calls
where many are sent, and cost every lone one another turn.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from mishards.errors import MishardsError
from mishards.wire.frames import FRAME_BYTES_MAX, Frame, FrameParser

UNANSWERED_MS_MAX = 10_000  # a peer's kernel that acknowledges nothing for so long is gone


class Connection(asyncio.Protocol):
    """Calls `on_frame` for each frame and `on_lost` with the reason, once, when the connection is over."""

    def __init__(
        self,
        on_frame: Callable[[Connection, Frame], None],
        on_lost: Callable[[Connection, str], None],
        body_bytes_max: int = FRAME_BYTES_MAX,
        on_made: Callable[[Connection], None] | None = None,
    ) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_made = on_made
        self._parser = FrameParser(body_bytes_max)
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._refusal = ""  # why we closed it ourselves

    @property
    def alive(self) -> bool:
        """Whether frames can still leave."""
        return self._transport is not None

    @property
    def clogged(self) -> bool:
        """Whether the peer takes less than what is sent."""
        return not self._writable.is_set()

    def send(self, frame: bytearray) -> None:
        """Send a frame. Dropped when the connection is over."""
        if self._transport is not None:
            self._transport.write(frame)

    async def writable(self) -> None:
        """Wait until the peer has taken enough of what was sent; returns at once when the connection is over."""
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        """Close when what was sent has left; `on_lost` follows."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def abort(self, reason: str) -> None:
        """Close at once, dropping what has not left; `on_lost` follows with this reason."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self._refusal = reason
            transport.abort()

    # ---------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _tune(transport.get_extra_info("socket"))
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._parser.feed(data)
        except MishardsError as error:
            self.abort(error.message)
            return
        for frame in frames:
            self._on_frame(self, frame)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._on_lost(self, self._refusal or (str(exc) if exc else "connection closed"))


def _tune(sock: socket.socket) -> None:
    """Small frames leave at once; a peer without power is noticed in seconds, not in the kernel's quarter hour."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS_MAX)
