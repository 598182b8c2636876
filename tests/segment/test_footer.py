"""The footer that ends every object."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec
import pytest

from mishards.errors import Kind, MishardsError
from mishards.segment.footer import FORMAT, MAGIC, Footer, append_footer, read_footer, seal, unseal, verify

BODY = bytes(range(256)) * 9000  # longer than one block of the checksum


def sealed_file(tmp_path: Path, body: bytes = BODY) -> Path:
    path = tmp_path / "object"
    path.write_bytes(body)
    append_footer(path, kind="vectors", rows=9, collection_id=7, shard=1)
    return path


@pytest.mark.parametrize("body", [BODY, b""])
def test_a_file_describes_itself(tmp_path: Path, body: bytes) -> None:
    """The footer of a file tells what it is, and the body before it is untouched."""
    path = sealed_file(tmp_path, body)

    footer = verify(path)

    assert footer == read_footer(path)
    assert (footer.kind, footer.rows, footer.collection_id, footer.shard) == ("vectors", 9, 7, 1)
    assert path.read_bytes()[: footer.body_bytes] == body


@pytest.mark.parametrize("at", [0, len(BODY) // 2, len(BODY) + 3, -1])
def test_one_flipped_bit_is_found(tmp_path: Path, at: int) -> None:
    """A bit flipped in the body, in the footer or in the magic makes the file corrupt, which can be retried."""
    path = sealed_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

    with pytest.raises(MishardsError, match="corrupt") as raised:
        verify(path)

    assert raised.value.kind is Kind.STORAGE_UNAVAILABLE
    assert str(path) in raised.value.message


@pytest.mark.parametrize("length", [0, 5, 100, len(BODY)])
def test_a_truncated_file_is_found(tmp_path: Path, length: int) -> None:
    """A file cut anywhere is corrupt."""
    path = sealed_file(tmp_path)
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(MishardsError, match="corrupt"):
        verify(path)


def test_a_hole_in_the_body_is_found() -> None:
    """A body that lost bytes before its footer is corrupt by its length."""
    data = seal(BODY, kind="rows", rows=1, collection_id=0, shard=0)

    with pytest.raises(MishardsError, match="body bytes"):
        unseal(data[8:], "rows")


def test_the_body_of_sealed_bytes_is_a_view() -> None:
    """Unsealing gives the same memory, verified, and refuses another kind."""
    data = seal(b"abc", kind="rows", rows=1, collection_id=0, shard=0)

    assert unseal(data, "rows") == b"abc"
    assert unseal(memoryview(data), "rows").obj is data
    with pytest.raises(MishardsError, match="kind is 'rows', expected 'tombstones'"):
        unseal(data, "tombstones")


def test_a_newer_format_is_not_read() -> None:
    """An object of a newer program is refused by its format, not misread."""
    footer = Footer(format=FORMAT + 1, kind="rows", rows=0, collection_id=0, shard=0, body_bytes=0, crc32=0)
    packed = msgspec.msgpack.encode(footer)
    newer = packed + struct.pack("<II", zlib.crc32(packed), len(packed)) + MAGIC

    with pytest.raises(MishardsError, match="newer than this program") as raised:
        unseal(newer, "rows")

    assert raised.value.kind is Kind.INTERNAL
