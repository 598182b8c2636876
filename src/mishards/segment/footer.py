"""The footer that ends every object (P1): what it is, how many rows, and a checksum of everything before it.

    body | footer (msgpack) | CRC-32 of the footer, its length (uint32 each, little-endian) | magic

It is at the end so that a file can be written in one pass, and so that FAISS and Arrow read the body unaware of it. It
describes itself, so that an object found without its metadata can be told.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec

from mishards.errors import Kind, MishardsError

FORMAT = 1
MAGIC = b"MISHARDS"
_TAIL = struct.Struct(f"<II{len(MAGIC)}s")
FOOTER_ROOM = 256  # what this program's footers need at most
_FOOTER_BYTES_MAX = 4096  # that are looked at, should another version's be larger
_BLOCK_BYTES = 1 << 20


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: rows, tombstones, scalars, vectors, deletes or index. `body_bytes` and `crc32` are of all before it."""

    format: int = FORMAT
    kind: str
    rows: int
    collection_id: int
    shard: int
    body_bytes: int
    crc32: int


def append_footer(path: Path, *, kind: str, rows: int, collection_id: int, shard: int) -> Footer:
    """End a finished local file with its footer."""
    footer = Footer(
        kind=kind,
        rows=rows,
        collection_id=collection_id,
        shard=shard,
        body_bytes=path.stat().st_size,
        crc32=_crc32_of(path),
    )
    with path.open("ab") as file:
        file.write(_encode(footer))
    return footer


def read_footer(path: Path) -> Footer:
    """The footer of a local file, without reading the body. Corrupt: STORAGE_UNAVAILABLE."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _FOOTER_BYTES_MAX))
        return _decode(memoryview(file.read()), size, str(path))


def verify(path: Path) -> Footer:
    """The footer of a local file whose body matches its checksum. Reads all of it. Corrupt: STORAGE_UNAVAILABLE."""
    footer = read_footer(path)
    _check_crc32("crc32", footer.crc32, _crc32_of(path, footer.body_bytes), str(path))
    return footer


def seal(body: bytes | memoryview, *, kind: str, rows: int, collection_id: int, shard: int) -> bytes:
    """The body with its footer, for objects that are made in memory."""
    return b"".join((body, footer_of(body, kind=kind, rows=rows, collection_id=collection_id, shard=shard)))


def footer_of(body: bytes | memoryview, *, kind: str, rows: int, collection_id: int, shard: int) -> bytes:
    """What ends the object that has this body: at most FOOTER_ROOM bytes."""
    footer = Footer(
        kind=kind,
        rows=rows,
        collection_id=collection_id,
        shard=shard,
        body_bytes=len(body),
        crc32=zlib.crc32(body),
    )
    return _encode(footer)


def unseal(data: bytes | memoryview, kind: str) -> memoryview:
    """The verified body of a sealed object of that kind, a view into `data`. Corrupt: STORAGE_UNAVAILABLE."""
    view = memoryview(data)
    name = f"<{kind} in memory>"
    footer = _decode(view[-_FOOTER_BYTES_MAX:], len(view), name)
    if footer.kind != kind:
        raise _corrupt(name, "kind", kind, footer.kind)
    body = view[: footer.body_bytes]
    _check_crc32("crc32", footer.crc32, zlib.crc32(body), name)
    return body


def _encode(footer: Footer) -> bytes:
    packed = msgspec.msgpack.encode(footer)
    return packed + _TAIL.pack(zlib.crc32(packed), len(packed), MAGIC)


def _decode(end: memoryview, size: int, name: str) -> Footer:
    """The footer at the end of an object of `size` bytes, of which `end` holds the last."""
    if len(end) < _TAIL.size:
        raise _corrupt(name, "bytes", f"at least {_TAIL.size}", size)
    crc32, length, magic = _TAIL.unpack(end[-_TAIL.size :])
    if magic != MAGIC:
        raise _corrupt(name, "magic", MAGIC, magic)
    packed = end[-_TAIL.size - length : -_TAIL.size]
    _check_crc32("footer's crc32", crc32, zlib.crc32(packed), name)
    footer = msgspec.msgpack.decode(packed, type=Footer)
    if footer.format > FORMAT:
        raise MishardsError(
            Kind.INTERNAL, f"object '{name}' has format {footer.format}, newer than this program's ({FORMAT})"
        )
    if footer.body_bytes != size - length - _TAIL.size:
        raise _corrupt(name, "body bytes", footer.body_bytes, size - length - _TAIL.size)
    return footer


def _check_crc32(what: str, expected: int, found: int, name: str) -> None:
    if found != expected:
        raise _corrupt(name, what, f"{expected:08x}", f"{found:08x}")


def _crc32_of(path: Path, length: int | None = None) -> int:
    """CRC-32 of the first `length` bytes, or of all."""
    left = path.stat().st_size if length is None else length
    crc = 0
    with path.open("rb", buffering=0) as file:
        block = memoryview(bytearray(min(left, _BLOCK_BYTES)))
        while left > 0 and (count := file.readinto(block[: min(left, _BLOCK_BYTES)])):
            crc = zlib.crc32(block[:count], crc)
            left -= count
    return crc


def _corrupt(name: str, what: str, expected: object, found: object) -> MishardsError:
    """Retryable: the copy may be bad where the object is not."""
    return MishardsError(
        Kind.STORAGE_UNAVAILABLE, f"object '{name}' is corrupt: {what} is {found!r}, expected {expected!r}"
    )
