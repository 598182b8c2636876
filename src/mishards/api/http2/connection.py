"""One connection: frames in, requests to the service, its replies out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

import structlog

from mishards.api.http2 import frames as f
from mishards.api.http2.frames import ErrorCode, ProtocolError
from mishards.api.http2.headers import HEADER_BYTES_MAX, HeaderReader, Headers
from mishards.api.http2.replies import Replies, Window
from mishards.api.http2.service import Service

STREAMS_MAX: Final = 1000  # requests at once; clients keep more to themselves
FRAME_BYTES_MAX: Final = 1 << 17  # that we take
STREAM_WINDOW: Final = 1 << 22  # bytes of one body that may be under way to us
CONNECTION_WINDOW: Final = 1 << 24
LAST_WORD_S: Final = 0.5  # to tell that the news of the end has arrived
_ENDING: Final = b"mishards"  # the ping that follows the news

_log = structlog.get_logger(__name__)


class Stream:
    """A request, and who answers it."""

    __slots__ = ("chunks", "headers", "received", "taken", "task", "window")

    def __init__(self, headers: Headers, window: Window) -> None:
        self.headers = headers
        self.chunks: list[bytes] = []
        self.received = 0  # bytes of the body
        self.taken = 0  # bytes of the window that we have not granted again
        self.task: asyncio.Task[None] | None = None
        self.window = window


class Connection(asyncio.Protocol):
    """Serves one client. `ended` is called with it when the connection is gone."""

    def __init__(self, service: Service, ended: Callable[[Connection], None]) -> None:
        self._service = service
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made
        self._read = self._read_preface
        self._unread = b""
        self._headers = HeaderReader()
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and bytes of headers whose end is to come
        self._streams: dict[int, Stream] = {}
        self._replies = Replies(self._forget)
        self._last = 0  # newest stream
        self._taken = 0
        self._greeted = False
        self._going: asyncio.TimerHandle | None = None
        self._gone = False  # nothing that comes is read any more

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [stream.task for stream in self._streams.values() if stream.task is not None]

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._replies.transport = cast(asyncio.Transport, transport)
        if (connected := transport.get_extra_info("socket")) is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # or one that vanished stays for ever
        settings = {
            f.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
            f.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            f.MAX_FRAME_SIZE: FRAME_BYTES_MAX,
            f.MAX_HEADER_LIST_SIZE: HEADER_BYTES_MAX,
        }
        grown = f.window_frame(0, CONNECTION_WINDOW - f.WINDOW_DEFAULT)
        self._transport.write(f.settings_frame(settings) + grown)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._going is not None:
            self._going.cancel()
        for task in self.tasks:
            task.cancel()
        self._ended(self)

    def pause_writing(self) -> None:
        """The client does not read: nor do we, or replies would pile up."""
        if not self._gone:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._gone:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        unread = self._unread + data if self._unread else data
        try:
            at = self._read(unread)
        except ProtocolError as fault:
            _log.info("http2 connection ended", reason=str(fault), code=fault.code.name)
            self._transport.write(f.goaway_frame(self._last, fault.code, str(fault)))
            self.close()
            return
        self._unread = unread[at:] if at < len(unread) else b""

    # The end

    def go_away(self) -> None:
        """Take no more requests, but for those that are under way to us; close when all are answered."""
        if self._going is None and not self._gone:
            self._transport.write(f.goaway_frame(f.STREAM_MAX, ErrorCode.NO_ERROR) + f.frame(f.PING, 0, 0, _ENDING))
            self._going = self._loop.call_later(LAST_WORD_S, self._last_word)

    def close(self) -> None:
        """Withdraw what is in progress and close as soon as what was written is sent."""
        self._gone = True
        for task in self.tasks:
            task.cancel()
        self._transport.close()

    def _last_word(self) -> None:
        """The client knows; what it sends from here on it knows to be lost."""
        if not self._gone:
            self._transport.write(f.goaway_frame(self._last, ErrorCode.NO_ERROR))
            self._last = f.STREAM_MAX
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._last == f.STREAM_MAX and not self._streams:
            self.close()

    # Frames in

    def _read_preface(self, data: bytes) -> int:
        if not data.startswith(f.PREFACE):
            if not f.PREFACE.startswith(data):
                self._refuse_stranger(data)
            return 0
        self._read = self._read_frames
        return len(f.PREFACE) + self._read_frames(data[len(f.PREFACE) :])

    def _refuse_stranger(self, data: bytes) -> None:
        if data[:3].isalpha():  # a browser, or a health check
            text = "This port speaks gRPC (HTTP/2): connect with a Milvus client.\n"
            head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}"
            self._transport.write(f"{head}\r\nConnection: close\r\n\r\n{text}".encode())
        self.close()

    def _read_frames(self, data: bytes) -> int:
        """Bytes that were read; a frame whose end is to come is not."""
        at, end = 0, len(data)
        while end - at >= f.HEAD_BYTES and not self._gone:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > FRAME_BYTES_MAX:
                raise ProtocolError(
                    ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes is above the limit of {FRAME_BYTES_MAX}"
                )
            body_at = at + f.HEAD_BYTES
            after = body_at + size
            if after > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : body_at], "big") & f.STREAM_MAX
            self._check_order(kind, stream)
            if kind < len(_HANDLERS):  # others are to be ignored
                _HANDLERS[kind](self, flags, stream, data[body_at:after])
            at = after
        return at

    def _check_order(self, kind: int, stream: int) -> None:
        if not self._greeted:
            if kind != f.SETTINGS:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._greeted = True
        if self._block is not None and (kind != f.CONTINUATION or stream != self._block[0]):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "headers are cut off by another frame")

    def _on_data(self, flags: int, number: int, body: bytes) -> None:
        size = len(body)
        self._taken += size
        if self._taken > CONNECTION_WINDOW // 2:
            self._transport.write(f.window_frame(0, self._taken))
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            self._check_known(number)
            return  # it was withdrawn or refused
        if stream.task is not None:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "data after the end of a request")
        stream.taken += size
        body = f.unpadded(flags, body)
        if body:
            stream.chunks.append(body)
        stream.received += len(body)
        if stream.received > self._service.body_bytes_max:
            self._replies.send(number, stream.window, self._service.too_large())
            self._replies.reset(number, ErrorCode.NO_ERROR)
        elif flags & f.END_STREAM:
            self._begin(number, stream)
        elif stream.taken > STREAM_WINDOW // 2:
            self._transport.write(f.window_frame(number, stream.taken))
            stream.taken = 0

    def _on_headers(self, flags: int, number: int, body: bytes) -> None:
        if number % 2 == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"headers of stream {number}, which no client may open")
        body = f.unpadded(flags, body)
        if flags & f.WITH_PRIORITY:
            if len(body) < 5:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "headers end within their priority")
            body = body[5:]
        if flags & f.END_HEADERS:
            self._on_request(flags, number, body)
        else:
            self._block = (number, flags, bytearray(body))

    def _on_continuation(self, flags: int, number: int, body: bytes) -> None:
        if self._block is None:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without headers before it")
        number, begun, block = self._block
        block += body
        _check_size(block)
        if flags & f.END_HEADERS:
            self._block = None
            self._on_request(begun, number, bytes(block))

    def _on_request(self, flags: int, number: int, block: bytes) -> None:
        _check_size(block)
        headers = self._headers.read(block)  # in any case: later blocks refer to it
        if number <= self._last:
            self._on_trailers(flags, number)
            return
        self._last = number
        if len(self._streams) >= STREAMS_MAX:
            self._replies.reset(number, ErrorCode.REFUSED_STREAM)
            return
        stream = self._streams[number] = Stream(headers, self._replies.window())
        if flags & f.END_STREAM:
            self._begin(number, stream)

    def _on_trailers(self, flags: int, number: int) -> None:
        """Headers on a stream that was opened before: the end of its request, or too late to matter."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.task is not None or not flags & f.END_STREAM:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "headers in the middle of a request")
        self._begin(number, stream)

    def _on_priority(self, flags: int, number: int, body: bytes) -> None:
        if len(body) != 5:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(body)} bytes")

    def _on_reset(self, flags: int, number: int, body: bytes) -> None:
        if len(body) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(body)} bytes")
        stream = self._streams.get(number)
        if stream is None:
            self._check_known(number)
            return
        if stream.task is not None:
            stream.task.cancel()
        self._replies.withdraw(number)
        self._forget(number)

    def _on_settings(self, flags: int, number: int, body: bytes) -> None:
        self._check_whole(number)
        if flags & f.ACK:
            return
        for setting, value in f.settings_in(body):
            if setting == f.INITIAL_WINDOW_SIZE:
                self._replies.grant_streams(value, (stream.window for stream in self._streams.values()))
            elif setting == f.MAX_FRAME_SIZE:
                self._replies.limit_frames(value)
            elif setting == f.ENABLE_PUSH and value > 1:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
        self._transport.write(f.frame(f.SETTINGS, f.ACK, 0))

    def _on_push(self, flags: int, number: int, body: bytes) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, number: int, body: bytes) -> None:
        self._check_whole(number)
        if len(body) != 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(body)} bytes")
        if not flags & f.ACK:
            self._transport.write(f.frame(f.PING, f.ACK, 0, body))
        elif body == _ENDING and self._going is not None:
            self._going.cancel()
            self._last_word()

    def _on_goaway(self, flags: int, number: int, body: bytes) -> None:
        """The client begins nothing more; it closes the connection itself."""

    def _on_window(self, flags: int, number: int, body: bytes) -> None:
        if len(body) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(body)} bytes")
        grown = int.from_bytes(body, "big") & f.WINDOW_MAX
        if grown == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        stream = self._streams.get(number)
        if stream is not None:
            self._replies.grant(stream.window, grown)
        elif number == 0:
            self._replies.grant(None, grown)
        else:
            self._check_known(number)

    def _check_known(self, number: int) -> None:
        if number == 0 or number > self._last:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"a frame of stream {number}, which was never opened")

    def _check_whole(self, number: int) -> None:
        if number:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"a frame of the connection on stream {number}")

    # Answers

    def _begin(self, number: int, stream: Stream) -> None:
        stream.task = self._loop.create_task(self._answer(number, stream))

    async def _answer(self, number: int, stream: Stream) -> None:
        chunks = stream.chunks
        try:
            reply = await self._service.answer(stream.headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))
        except Exception:
            _log.exception("http2 request failed")
            self._replies.reset(number, ErrorCode.INTERNAL_ERROR)
            self._forget(number)
            return
        self._replies.send(number, stream.window, reply)

    def _forget(self, number: int) -> None:
        """The stream has ended; frames of it that are under way are ignored."""
        self._streams.pop(number, None)
        self._close_if_done()


def _check_size(block: bytes | bytearray) -> None:
    if len(block) > HEADER_BYTES_MAX:
        text = f"headers of {len(block)} bytes are above the limit of {HEADER_BYTES_MAX}"
        raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, text)


# By kind
_HANDLERS: Final[tuple[Callable[[Connection, int, int, bytes], None], ...]] = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_reset,
    Connection._on_settings,
    Connection._on_push,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window,
    Connection._on_continuation,
)
