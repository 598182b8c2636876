"""What a connection serves: whole requests in, whole replies out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mishards.api.http2.headers import Headers


class Reply(NamedTuple):
    """A reply, its headers as blocks. Without trailers and body it ends with the headers."""

    headers: bytes
    body: bytes = b""
    trailers: bytes = b""


class Service(Protocol):
    """Answers requests."""

    body_bytes_max: int

    async def answer(self, headers: Headers, body: bytes) -> Reply:
        """The reply. Is cancelled when the client withdraws the request."""

    def too_large(self) -> Reply:
        """The reply to a request whose body is above `body_bytes_max`."""
