"""Copying immutable objects from one storage to another: some at once, each verified on the way (I3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from mishards.backup.document import StoredObject
from mishards.errors import MishardsError
from mishards.ports import Storage
from mishards.segment.footer import verify

COPIES_MAX = 4  # at once (P15)

Progress = Callable[[int, int], None]  # bytes done, bytes in all


async def copy_all(
    source: Storage, target: Storage, renamed: Mapping[str, str], sizes: Mapping[str, int], scratch: Path, tick: Tick
) -> dict[str, StoredObject]:
    """Copy objects of `source` to their new paths in `target`: what each is, by its old path. The first failure ends
    it. `scratch`: a local directory."""
    found: dict[str, StoredObject] = {}
    slots = asyncio.Semaphore(COPIES_MAX)

    async def one(number: int, path: str) -> None:
        async with slots:
            local = scratch / str(number)
            try:
                found[path] = await look_at(source, path, local)
                await target.put_file(renamed[path], local)
            finally:
                local.unlink(missing_ok=True)
            tick(sizes[path])

    try:
        async with asyncio.TaskGroup() as tasks:
            for number, path in enumerate(renamed):
                tasks.create_task(one(number, path))
    except* MishardsError as group:
        raise group.exceptions[0] from None
    return found


async def look_at(storage: Storage, path: str, local: Path, name: str = "") -> StoredObject:
    """What the object is, named `name`; a verified copy lies at `local`. STORAGE_UNAVAILABLE if it is damaged."""
    await storage.fetch(path, local)
    return await asyncio.to_thread(_described, local, name or path)


def _described(local: Path, name: str) -> StoredObject:
    footer = verify(local)
    return StoredObject(name, local.stat().st_size, footer.crc32)


class Tick:
    """Counts bytes for whoever shows the progress."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        progress(0, total)

    def __call__(self, bytes: int) -> None:
        self._done += bytes
        self._progress(self._done, self._total)
