"""What a backup consists of, and where its parts lie in the target storage.

`objects/{path}` are copies of immutable objects under their own names, which are unique for ever (P1): backups share
them. `backups/{name}.backup` is the document, written last: without it there is no backup. It is sealed with a checksum
like every object. `backups/{name}.unfinished` marks one that is being made.
"""

from __future__ import annotations

import re

import msgspec

from mishards.errors import Kind, MishardsError, invalid
from mishards.model import Collection, File, FileId, Version
from mishards.ports import Storage
from mishards.segment.footer import seal, unseal

FORMAT = 1
FOLDER = "backups/"
COMPLETE, UNFINISHED = ".backup", ".unfinished"
OBJECTS = "objects/"
KIND = "backup"  # in the footer
NAME_LENGTH_MAX = 200

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class StoredObject(msgspec.Struct, frozen=True):
    """One copied object: its own path, and what its footer says of its body."""

    path: str
    bytes: int
    crc32: int


class SavedCollection(msgspec.Struct, frozen=True, kw_only=True):
    """One collection at the version that was pinned. `payloads`: the contents of fresh files that are not objects."""

    definition: Collection
    version: Version
    ts: int
    files: tuple[File, ...]
    payloads: dict[FileId, bytes]

    @property
    def rows(self) -> int:
        """As stored: deletes not yet applied to segments are still counted."""
        return sum(file.rows - file.dead for file in self.files if file.partition_id)

    @property
    def paths(self) -> dict[str, int]:
        """The objects that its files name, with their sizes."""
        return {part.path: part.bytes for file in self.files for part in file.parts if part.path}


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    name: str
    created_ms: int
    collections: tuple[SavedCollection, ...]
    objects: tuple[StoredObject, ...]

    @property
    def bytes(self) -> int:
        return sum(stored.bytes for stored in self.objects)


def check_name(name: str) -> None:
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise invalid(
            f"backup name {name!r} is none: 1 to {NAME_LENGTH_MAX} letters, digits, underscores, dots and dashes"
        )


async def names(target: Storage, kind: str = COMPLETE) -> list[str]:
    """The names of the backups there, complete or unfinished ones."""
    found = [path.removeprefix(FOLDER) for path in await target.list(FOLDER) if path.endswith(kind)]
    return [path.removesuffix(kind) for path in found]


async def read(target: Storage, name: str) -> Backup:
    """PARAMETER_INVALID without such a backup, INTERNAL if it is of a newer format, STORAGE_UNAVAILABLE if damaged."""
    check_name(name)
    try:
        sealed = await target.get(FOLDER + name + COMPLETE)
    except MishardsError as error:
        if error.kind is Kind.GONE:
            raise invalid(f"there is no backup {name}") from error
        raise
    body = unseal(sealed, KIND)
    found = msgspec.json.decode(body, type=_Format).format
    if found > FORMAT:
        raise MishardsError(Kind.INTERNAL, f"backup {name} has format {found}, this program knows up to {FORMAT}")
    return msgspec.json.decode(body, type=Backup)


async def read_all(target: Storage) -> list[Backup]:
    """The complete backups, by name."""
    return [await read(target, name) for name in sorted(await names(target))]


async def write(target: Storage, backup: Backup) -> None:
    body = msgspec.json.encode(backup)
    rows = sum(saved.rows for saved in backup.collections)
    await target.put(FOLDER + backup.name + COMPLETE, seal(body, kind=KIND, rows=rows, collection_id=0, shard=0))


class _Format(msgspec.Struct):
    format: int
