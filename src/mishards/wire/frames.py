"""Frames: what travels between two processes (P18). A fixed header, then one message as msgpack.

    u32 body length | u8 kind | u16 method | u32 request id | u32 deadline in ms | body          (little-endian)

Sans I/O: bytes in, frames out. Request ids are chosen by the caller and repeated by the answer, so that any number of
requests share one connection and are answered in any order.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from mishards.errors import Kind, MishardsError
from mishards.wire.messages import Message
from mishards.wire.services import METHODS, Method

FRAME_BYTES_MAX = 256 << 20  # of a body: four times the largest request a door takes
DEADLINE_MS_MAX = 2**32 - 1

_HEADER = struct.Struct("<IBHII")
_ENCODER = msgspec.msgpack.Encoder()


class FrameKind(IntEnum):
    REQUEST = 1
    REPLY = 2
    ERROR = 3
    CANCEL = 4


_KINDS = frozenset(map(int, FrameKind))


class Frame(NamedTuple):
    kind: int
    method: int
    request_id: int
    deadline_ms: int  # of a request: what remained when it was sent
    body: memoryview  # into the received bytes, which are never written again


class ErrorBody(Message, frozen=True):
    """A MishardsError on its way; kinds travel by name."""

    kind: str
    message: str
    detail: str


def encode_frame(
    kind: FrameKind,
    method: int,
    request_id: int,
    message: Any = None,
    *,
    deadline_s: float = 0.0,
    body_bytes_max: int = FRAME_BYTES_MAX,
) -> bytearray:
    """One frame, header and body in one buffer; the body is empty without a message. PARAMETER_TOO_LARGE."""
    buffer = bytearray(_HEADER.size)
    if message is not None:
        _ENCODER.encode_into(message, buffer, _HEADER.size)
    body_bytes = len(buffer) - _HEADER.size
    if body_bytes > body_bytes_max:
        raise _too_large(body_bytes, body_bytes_max)
    deadline_ms = min(max(math.ceil(deadline_s * 1000), 0), DEADLINE_MS_MAX)
    _HEADER.pack_into(buffer, 0, body_bytes, kind, method, request_id, deadline_ms)
    return buffer


class FrameParser:
    """Cuts a stream of bytes into frames. A whole frame in one chunk is not copied, one in pieces is copied once."""

    def __init__(self, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._body_bytes_max = body_bytes_max
        self._held = bytearray()  # the beginning of a frame ...
        self._wanted = 0  # ... that cannot be cut before so many bytes are held

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that this chunk completes. PARAMETER_TOO_LARGE or PARAMETER_INVALID: not our protocol, or a peer
        beyond the limit; the stream cannot be read on."""
        data: bytes | bytearray = chunk
        if self._held:
            self._held += chunk
            if len(self._held) < self._wanted:
                return []
            data, self._held = self._held, bytearray()
        frames: list[Frame] = []
        view, at, end = memoryview(data), 0, len(data)
        self._wanted = _HEADER.size
        while end - at >= _HEADER.size:
            body_bytes, kind, method, request_id, deadline_ms = _HEADER.unpack_from(data, at)
            self._check(kind, body_bytes)
            body_at = at + _HEADER.size
            after = body_at + body_bytes
            if after > end:
                self._wanted = after - at
                break
            frames.append(Frame(kind, method, request_id, deadline_ms, view[body_at:after]))
            at = after
        if at < end:
            self._held += view[at:]
        return frames

    def _check(self, kind: int, body_bytes: int) -> None:
        if kind not in _KINDS:
            raise MishardsError(Kind.PARAMETER_INVALID, f"frame kind {kind} is unknown (1 to 4): not a Mishards peer")
        if body_bytes > self._body_bytes_max:
            raise _too_large(body_bytes, self._body_bytes_max)


class Codec(NamedTuple):
    """A method with the decoders of its messages."""

    method: Method
    request: msgspec.msgpack.Decoder[Any]
    reply: msgspec.msgpack.Decoder[Any]


def _codec(method: Method) -> Codec:
    return Codec(method, msgspec.msgpack.Decoder(method.request), msgspec.msgpack.Decoder(method.reply))


CODECS = {method.number: _codec(method) for method in METHODS}
CODECS_BY_NAME = {f"{codec.method.service}.{codec.method.name}": codec for codec in CODECS.values()}

_ERROR_DECODER = msgspec.msgpack.Decoder(ErrorBody)


def error_body(error: MishardsError) -> ErrorBody:
    return ErrorBody(error.kind.name, error.message, error.detail)


def decode_error(body: memoryview) -> MishardsError:
    """The error a peer sent; a kind that this program does not know is INTERNAL."""
    error = _ERROR_DECODER.decode(body)
    known = error.kind in Kind.__members__
    return MishardsError(Kind[error.kind] if known else Kind.INTERNAL, error.message, error.detail)


def _too_large(body_bytes: int, limit: int) -> MishardsError:
    return MishardsError(Kind.PARAMETER_TOO_LARGE, f"frame of {body_bytes} bytes exceeds the limit of {limit} bytes")
