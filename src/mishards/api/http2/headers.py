"""Header blocks (HPACK, RFC 7541): read by the `hpack` library, but for the few forms that every request repeats.

The library needs 20 microseconds for the headers of one call. Clients send most of them as numbers of fields that they
sent before, and the rest as plain text; such blocks are read here in 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack import Decoder, HPACKError
from hpack.hpack import encode_integer

from mishards.api.http2.frames import ErrorCode, ProtocolError

Headers = dict[str, str]

HEADER_BYTES_MAX: Final = 64 * 1024  # of one request's headers

_INDEXED: Final = 0x80  # and above: the number of a field
_PLAIN: Final = (0x00, 0x10)  # a name and a value, which no later block refers to
_SHORT: Final = 0x7F  # lengths and numbers below it are one byte; a length above it is of Huffman codes


class HeaderReader:
    """Reads the header blocks of one connection, which must be all of them and in order."""

    def __init__(self) -> None:
        self._decoder = Decoder(HEADER_BYTES_MAX)
        self._fields: dict[int, tuple[str, str]] = {}  # by their first byte, as the decoder has them now

    def read(self, block: bytes) -> Headers:
        """The fields; of several with one name the last. ProtocolError when they cannot be told."""
        found = self._read_plain(block)
        if found is None:
            try:
                found = {str(name): str(value) for name, value in self._decoder.decode(block)}
            except HPACKError as error:
                raise ProtocolError(ErrorCode.COMPRESSION_ERROR, f"a header block cannot be read: {error}") from error
            self._fields.clear()  # the block may have renumbered them
        return found

    def _read_plain(self, block: bytes) -> Headers | None:
        """None for a block that has more to it."""
        found: Headers = {}
        at, end = 0, len(block)
        try:
            while at < end:
                first = block[at]
                if first > _INDEXED:
                    field = self._fields.get(first) or self._field(first)
                    if field is None:
                        return None
                    found[field[0]] = field[1]
                    at += 1
                elif first in _PLAIN:
                    name_bytes = block[at + 1]
                    value_at = at + 2 + name_bytes
                    value_bytes = block[value_at]
                    after = value_at + 1 + value_bytes
                    if name_bytes >= _SHORT or value_bytes >= _SHORT or after > end:
                        return None
                    found[str(block[at + 2 : value_at], "utf-8")] = str(block[value_at + 1 : after], "utf-8")
                    at = after
                else:
                    return None
        except (IndexError, UnicodeDecodeError):
            return None
        return found

    def _field(self, first: int) -> tuple[str, str] | None:
        number = first - _INDEXED
        if number >= _SHORT:
            return None
        try:
            name, value = self._decoder.header_table.get_by_index(number)
        except HPACKError:
            return None
        self._fields[first] = field = (str(name, "utf-8"), str(value, "utf-8"))
        return field


def header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """The fields as plain text, the same whatever was sent before."""
    block = bytearray()
    for name, value in fields:
        block.append(_PLAIN[0])
        for text in (name.encode(), value.encode()):
            block += encode_integer(len(text), 7)
            block += text
    return bytes(block)
