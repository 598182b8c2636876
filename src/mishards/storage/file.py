"""Storage in a directory: one machine's disk, or NFS shared by all nodes.

obstore writes a temporary file and renames it but never syncs, so a put here ends with fsync of the file and of every
directory up to the root: after it returns, the object survives a power cut (I3).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from obstore.store import LocalStore

from mishards.errors import SetupError
from mishards.storage.objects import ObjectStorage, partial_of


def open_storage(url: str) -> FileStorage:
    """Storage in the directory that `file:///abs/path` names, which is made if missing. SetupError."""
    parts = urlsplit(url)
    root = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not root.is_absolute():
        raise SetupError(f"storage URL '{url}' is not of the form file:///absolute/path")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"storage directory '{root}' cannot be made: {error.strerror}") from error
    return FileStorage(root)


class FileStorage(ObjectStorage):
    """`ports.Storage` in a directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalStore(root, automatic_cleanup=True), root.as_uri())
        self._root = root

    async def put(self, path: str, data: bytes | memoryview) -> None:
        await super().put(path, data)
        await self._sync(path)

    async def put_file(self, path: str, source: Path) -> None:
        await super().put_file(path, source)
        await self._sync(path)

    async def fetch(self, path: str, destination: Path) -> None:
        """Hard-link it, which costs nothing and survives the object's deletion; copy from another file system."""
        with self._translated(path):
            await asyncio.to_thread(_link_or_copy, self._root / path, destination)

    async def _sync(self, path: str) -> None:
        with self._translated(path):
            await asyncio.to_thread(_sync_up_to, self._root, self._root / path)


def _sync_up_to(root: Path, file: Path) -> None:
    """fsync the file and the directories that lead to it, any of which may be new."""
    for each in (file, *file.relative_to(root).parents):
        descriptor = os.open(root / each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link_or_copy(source: Path, destination: Path) -> None:
    partial = partial_of(destination)
    partial.unlink(missing_ok=True)
    try:
        try:
            partial.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, partial)
        destination.unlink(missing_ok=True)  # replacing a link by one to the same file would do nothing
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
