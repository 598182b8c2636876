"""Echoes: what the metadata service knows of a collection, written to storage now and then (P14).

Should the metadata service be lost for good, `rebuild` makes a new one of them. They are never read otherwise. The
newer of two has the greater path; they are named freshly, as everything in storage (P1).
"""

from __future__ import annotations

import msgspec

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, File, FileId, Version
from mishards.ports import Pin

FOLDER = "manifest"
FORMAT = 1


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """One collection at a version. Of removed files those are here that a pin needs."""

    format: int = FORMAT
    collection: Collection
    version: Version
    ts: int
    head: str
    at_ms: int  # wall clock, for people
    files: tuple[File, ...] = ()
    payloads: dict[FileId, bytes] = {}
    pins: tuple[Pin, ...] = ()


def folder_of(collection_id: CollectionId) -> str:
    return f"{FOLDER}/{collection_id}/"


def path_of(echo: Echo, token: str) -> str:
    return f"{folder_of(echo.collection.id)}{echo.version:019d}-{echo.at_ms:014d}-{token}.json"


def collection_of(path: str) -> CollectionId | None:
    """Whose echo lies there; None if the path is none of an echo."""
    folder, _, rest = path.partition("/")
    id, _, name = rest.partition("/")
    return CollectionId(int(id)) if folder == FOLDER and id.isdecimal() and name.endswith(".json") else None


def encode(echo: Echo) -> bytes:
    return msgspec.json.encode(echo)


def decode(data: bytes, path: str) -> Echo:
    """STORAGE_UNAVAILABLE if it is damaged or of a newer format."""
    try:
        echo = msgspec.json.decode(data, type=Echo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MishardsError(Kind.STORAGE_UNAVAILABLE, f"echo '{path}' is damaged: {error}") from error
    if echo.format > FORMAT:
        message = f"echo '{path}' has format {echo.format}, this program knows up to {FORMAT}"
        raise MishardsError(Kind.STORAGE_UNAVAILABLE, message)
    return echo
