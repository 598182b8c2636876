"""gRPC's unary calls: between requests of HTTP/2 and methods of the dispatcher."""

from __future__ import annotations

import zlib
from typing import Final
from urllib.parse import quote

from mishards.api.http2.headers import Headers, header_block
from mishards.api.http2.service import Reply
from mishards.api.milvus.dispatch import Dispatcher
from mishards.api.milvus.rpcs import SERVICE

# Codes of gRPC itself. What a method has to say is in its response's Status.
_RESOURCE_EXHAUSTED: Final = 8
_UNIMPLEMENTED: Final = 12
_INTERNAL: Final = 13

_RECEIVE_FACTOR: Final = 4  # refused above it; between it and the limit the dispatcher answers a clear Status
_PREFIX_BYTES: Final = 5  # whether it is compressed (1), length (4)
_HTTP_OK: Final = b"\x88"  # a field of HPACK's static table
_HEADERS: Final = _HTTP_OK + header_block([("content-type", "application/grpc")])
_OK: Final = header_block([("grpc-status", "0")])
_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_WBITS: Final = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_VISIBLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class _CallError(Exception):
    """A call that no method can answer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class UnaryCalls:
    """Serves the dispatcher's methods."""

    def __init__(self, dispatcher: Dispatcher, request_bytes_max: int) -> None:
        self._dispatcher = dispatcher
        self._methods = {f"/{SERVICE}/{name}": name for name in dispatcher.methods}
        self.body_bytes_max = _RECEIVE_FACTOR * request_bytes_max

    async def answer(self, headers: Headers, body: bytes) -> Reply:
        """The reply to one call. Raises nothing but CancelledError."""
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
            return Reply(header_block([(":status", "415"), ("accept", "application/grpc")]))
        try:
            method = self._methods.get(headers.get(":path", ""))
            if method is None:
                raise _CallError(_UNIMPLEMENTED, f"method not found: {headers.get(':path', '')}")
            payload = self._message(headers, body)
            timeout_s = _timeout_s(headers.get("grpc-timeout", ""))
        except _CallError as error:
            return _refusal(error.code, str(error))
        response = await self._dispatcher.answer(method, payload, headers, timeout_s)
        return Reply(_HEADERS, b"".join((b"\0", len(response).to_bytes(4, "big"), response)), _OK)

    def too_large(self) -> Reply:
        return _refusal(_RESOURCE_EXHAUSTED, f"request is larger than {self.body_bytes_max} bytes")

    def _message(self, headers: Headers, body: bytes) -> bytes:
        """The one message of the body."""
        if len(body) < _PREFIX_BYTES or int.from_bytes(body[1:_PREFIX_BYTES], "big") != len(body) - _PREFIX_BYTES:
            raise _CallError(_INTERNAL, f"a body of {len(body)} bytes is not one whole message")
        if body[0] == 0:
            return body[_PREFIX_BYTES:]
        return self._decompressed(headers.get("grpc-encoding", "identity"), body[_PREFIX_BYTES:])

    def _decompressed(self, encoding: str, message: bytes) -> bytes:
        if encoding not in _WBITS:
            raise _CallError(
                _UNIMPLEMENTED, f"messages compressed with {encoding!r} are not understood: use gzip, deflate"
            )
        inflater = zlib.decompressobj(_WBITS[encoding])
        try:
            payload = inflater.decompress(message, self.body_bytes_max)
        except zlib.error as error:
            raise _CallError(_INTERNAL, f"a message compressed with {encoding} cannot be read: {error}") from error
        if inflater.unconsumed_tail:
            raise _CallError(_RESOURCE_EXHAUSTED, f"request is larger than {self.body_bytes_max} bytes")
        if not inflater.eof:
            raise _CallError(_INTERNAL, f"a message compressed with {encoding} is cut off")
        return payload


def _timeout_s(text: str) -> float | None:
    """`100m` is 0.1 s; up to eight digits."""
    if not text:
        return None
    number, unit = text[:-1], _UNITS_S.get(text[-1])
    if unit is None or not (number.isascii() and number.isdigit() and len(number) <= 8):
        raise _CallError(
            _INTERNAL, f"grpc-timeout {text!r} is not a number of at most 8 digits and one of H, M, S, m, u, n"
        )
    return int(number) * unit


def _refusal(code: int, text: str) -> Reply:
    """A reply that is headers alone."""
    fields = [("grpc-status", str(code)), ("grpc-message", quote(text, safe=_VISIBLE))]
    return Reply(_HEADERS + header_block(fields))
