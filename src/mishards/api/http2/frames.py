"""The frames of HTTP/2 as bytes (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9  # length (3), kind (1), flags (1), stream (4)

# Kinds
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags
ACK: Final = 0x01
END_STREAM: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
WITH_PRIORITY: Final = 0x20

# Settings
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

WINDOW_DEFAULT: Final = 65_535
WINDOW_MAX: Final = (1 << 31) - 1
FRAME_SIZE_DEFAULT: Final = 16_384
FRAME_SIZE_MAX: Final = (1 << 24) - 1
STREAM_MAX: Final = (1 << 31) - 1

_setting = struct.Struct(">HL")


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ProtocolError(Exception):
    """The other side broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return b"".join((len(body).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), body))


def settings_frame(settings: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*item) for item in settings.items()))


def settings_in(body: bytes) -> Iterator[tuple[int, int]]:
    if len(body) % _setting.size:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(body)} bytes, not a multiple of 6")
    return _setting.iter_unpack(body)


def window_frame(stream: int, grown: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, grown.to_bytes(4, "big"))


def reset_frame(stream: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway_frame(last: int, code: ErrorCode, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())


def unpadded(flags: int, body: bytes) -> bytes:
    """The body of DATA or HEADERS without its padding."""
    if not flags & PADDED:
        return body
    if not body or body[0] >= len(body):
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return body[1 : len(body) - body[0]]
