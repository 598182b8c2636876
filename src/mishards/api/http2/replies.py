"""Replies on their way out: whole where the client's windows allow it, else piece by piece as it grants more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mishards.api.http2 import frames as f
from mishards.api.http2.frames import ErrorCode, ProtocolError
from mishards.api.http2.service import Reply


class Window:
    """What one stream may send yet, and what waits for more."""

    __slots__ = ("left", "trailers", "unsent")

    def __init__(self, left: int) -> None:
        self.left = left
        self.unsent = memoryview(b"")
        self.trailers = b""


class Replies:
    """The replies of one connection. `sent` is called with each stream whose reply is out."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until the connection is made
        self._sent = sent
        self._left = f.WINDOW_DEFAULT  # of all streams together
        self._stream_left = f.WINDOW_DEFAULT  # of a new one
        self._frame_bytes_max = f.FRAME_SIZE_DEFAULT
        self._waiting: dict[int, Window] = {}

    def window(self) -> Window:
        """Of a new stream."""
        return Window(self._stream_left)

    def send(self, number: int, window: Window, reply: Reply) -> None:
        size = len(reply.body)
        if not reply.trailers:
            self.transport.write(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, number, reply.headers))
            self._sent(number)
        elif size <= self._frame_bytes_max and size <= self._left and size <= window.left:
            self._left -= size
            head = f.frame(f.HEADERS, f.END_HEADERS, number, reply.headers)
            tail = f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, number, reply.trailers)
            self.transport.write(b"".join((head, f.frame(f.DATA, 0, number, reply.body), tail)))
            self._sent(number)
        else:
            self.transport.write(f.frame(f.HEADERS, f.END_HEADERS, number, reply.headers))
            window.unsent = memoryview(reply.body)
            window.trailers = reply.trailers
            self._waiting[number] = window
            self._send_waiting()

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream without a reply, or after one that came before its request's end."""
        self.transport.write(f.reset_frame(number, code))

    def withdraw(self, number: int) -> None:
        """Nobody waits for this reply any more."""
        self._waiting.pop(number, None)

    def grant(self, window: Window | None, grown: int) -> None:
        """The client takes more, on one stream or (None) on all together."""
        if window is None:
            self._left = _checked(self._left + grown)
        else:
            window.left = _checked(window.left + grown)
        if self._waiting:
            self._send_waiting()

    def grant_streams(self, size: int, open_windows: Iterable[Window]) -> None:
        """A new size of every stream's window: those that are open change by the difference."""
        for window in open_windows:
            window.left = _checked(window.left + _checked(size) - self._stream_left)
        self._stream_left = _checked(size)
        self._send_waiting()

    def limit_frames(self, size: int) -> None:
        if not f.FRAME_SIZE_DEFAULT <= size <= f.FRAME_SIZE_MAX:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"a largest frame of {size} bytes")
        self._frame_bytes_max = size

    def _send_waiting(self) -> None:
        for number, window in list(self._waiting.items()):
            while window.unsent:
                size = min(len(window.unsent), self._frame_bytes_max, self._left, window.left)
                if size <= 0:
                    break
                self.transport.write(f.frame(f.DATA, 0, number, bytes(window.unsent[:size])))
                window.unsent = window.unsent[size:]
                window.left -= size
                self._left -= size
            else:
                self.transport.write(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, number, window.trailers))
                del self._waiting[number]
                self._sent(number)


def _checked(size: int) -> int:
    if size > f.WINDOW_MAX:
        raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {size} bytes")
    return size
