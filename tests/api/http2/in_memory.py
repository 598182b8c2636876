"""A connection between a client in memory, the `h2` library, and the server's side of it."""

from __future__ import annotations

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from mishards.api.http2.connection import Connection
from mishards.api.http2.headers import Headers, header_block
from mishards.api.http2.service import Reply

BODY_BYTES_MAX = 1 << 20


class Echo:
    """Replies with the body, reversed, but for `/count`, and its length. `hold`: not before it is set."""

    body_bytes_max = BODY_BYTES_MAX

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.seen: list[Headers] = []
        self.withdrawn = 0

    async def answer(self, headers: Headers, body: bytes) -> Reply:
        self.seen.append(headers)
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        if headers[":path"] == "/broken":
            raise ZeroDivisionError("oops")
        block = b"\x88" + header_block([("path", headers[":path"])])
        back = b"" if headers[":path"] == "/count" else body[::-1]
        return Reply(block, back, header_block([("bytes", str(len(body)))]))

    def too_large(self) -> Reply:
        return Reply(header_block([(":status", "413")]))


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Answer:
    """What came back on a stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.trailers: dict[str, str] = {}
        self.ended = False
        self.reset: int | None = None


class Client:
    """Speaks to a `Connection` over an `Echo`; `talk` passes on what both sides have to say, until they are silent."""

    def __init__(self) -> None:
        self.service = Echo()
        self.ended: list[Connection] = []
        self.server = Connection(self.service, self.ended.append)
        self.transport = FakeTransport()
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.answers: dict[int, Answer] = {}
        self.events: list[Event] = []
        self.answer_data = True  # whether to grant new windows for what was received
        self.server.connection_made(self.transport)
        self.h2.initiate_connection()

    async def talk(self) -> None:
        while True:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            data, self.transport.written = self.transport.written, b""
            for event in self.h2.receive_data(data):
                self._on(event)
            out = self.h2.data_to_send()
            if out:
                self.server.data_received(out)
            elif not data:
                return

    def ask(self, path: str, body: bytes = b"", extra: dict[str, str] | None = None, *, end: bool = True) -> int:
        """Begin a request; its stream."""
        stream = self.h2.get_next_available_stream_id()
        fields = {":method": "POST", ":scheme": "http", ":authority": "here", ":path": path, **(extra or {})}
        self.h2.send_headers(stream, list(fields.items()))
        self.answers[stream] = Answer()
        at = 0
        while at < len(body) and (size := min(self.h2.local_flow_control_window(stream), 16_384, len(body) - at)):
            self.h2.send_data(stream, body[at : at + size])
            at += size
        if end:
            self.h2.end_stream(stream)
        return stream

    def _on(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case ResponseReceived():
                self.answers[event.stream_id].headers = dict(event.headers)
            case DataReceived():
                self.answers[event.stream_id].body += event.data
                if self.answer_data:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                self.answers[event.stream_id].trailers = dict(event.headers)
            case StreamEnded():
                self.answers[event.stream_id].ended = True
            case StreamReset():
                self.answers[event.stream_id].reset = event.error_code
