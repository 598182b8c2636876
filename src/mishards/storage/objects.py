"""Storage over any obstore store: the part that a local directory and S3 share.

Paths are written once (P1), so a put that is repeated after a lost answer overwrites equal bytes. obstore does its I/O
on its own threads; nothing here blocks the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore

from mishards.errors import Kind, MishardsError

BLOCK_BYTES = 16 << 20  # of one request of a download: done well within obstore's 30 s limit on a request
LIST_PAGE = 1000  # what S3 returns at once


class ObjectStorage:
    """`ports.Storage` over an obstore store. `name` (a URL) is what error messages call it."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    async def put(self, path: str, data: bytes | memoryview) -> None:
        with self._translated(path):
            await obstore.put_async(self._store, path, data)

    async def put_file(self, path: str, source: Path) -> None:
        with self._translated(path):
            await obstore.put_async(self._store, path, source)

    async def get(self, path: str) -> bytes:
        with self._translated(path):
            answer = await obstore.get_async(self._store, path)
            return bytes(await answer.bytes_async())

    async def fetch(self, path: str, destination: Path) -> None:
        partial = partial_of(destination)
        try:
            with self._translated(path):
                size = (await obstore.head_async(self._store, path))["size"]
                with await asyncio.to_thread(partial.open, "wb") as file:
                    for start in range(0, size, BLOCK_BYTES):
                        length = min(BLOCK_BYTES, size - start)
                        block = await obstore.get_range_async(self._store, path, start=start, length=length)
                        await asyncio.to_thread(file.write, block)
                partial.replace(destination)
        finally:
            partial.unlink(missing_ok=True)

    async def delete(self, paths: Sequence[str]) -> None:
        try:
            await self._delete(paths)
        except MishardsError as error:
            if error.kind is not Kind.GONE:
                raise
            for path in paths:  # a bulk delete stops at an object that is missing
                await self._delete_if_there(path)

    async def list(self, prefix: str) -> list[str]:
        with self._translated(prefix):
            pages = obstore.list(self._store, prefix=prefix or None, chunk_size=LIST_PAGE)
            return sorted([entry["path"] async for page in pages for entry in page])

    async def _delete_if_there(self, path: str) -> None:
        try:
            await self._delete([path])
        except MishardsError as error:
            if error.kind is not Kind.GONE:
                raise

    async def _delete(self, paths: Sequence[str]) -> None:
        if paths:
            with self._translated(paths[0]):
                await obstore.delete_async(self._store, list(paths))

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """obstore's and the system's errors as GONE or STORAGE_UNAVAILABLE."""
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise MishardsError(Kind.GONE, f"object '{path}' does not exist in {self._name}") from error
        except (BaseError, OSError) as error:
            reason = str(error).partition("\n")[0]  # below the first line obstore prints its structures
            raise MishardsError(Kind.STORAGE_UNAVAILABLE, f"storage {self._name}, '{path}': {reason}") from error


def partial_of(destination: Path) -> Path:
    """Where a local copy grows until it is complete."""
    return destination.with_name(destination.name + ".partial")
