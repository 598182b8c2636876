"""The local disk cache: private copies of storage objects, verified, mapped, dropped when room is needed (P1).

Nothing in it is needed for correctness. A file that is open or mapped may be unlinked: the mapping stays valid.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor
from pathlib import Path

import structlog

from mishards.model import Part
from mishards.ports import Storage
from mishards.segment.footer import verify

log = structlog.get_logger(__name__)


class DiskCache:
    """Local copies by storage path, at most `bytes_max` (the newest ones stay). One download at a time per object."""

    def __init__(self, storage: Storage, directory: Path, bytes_max: int, pool: Executor) -> None:
        self._storage = storage
        self._directory = directory
        self._bytes_max = bytes_max
        self._pool = pool
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def bytes(self) -> int:
        return self._bytes

    def clear(self) -> None:
        """Start empty: what an earlier process left is not trusted."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            path.unlink()

    async def get(self, part: Part) -> Path:
        """A verified local copy. GONE when storage has it no more, STORAGE_UNAVAILABLE when it cannot be had now."""
        lock = self._locks.setdefault(part.path, asyncio.Lock())
        async with lock:
            local = self._directory / part.path.replace("/", "_")
            if part.path in self._kept:
                self._kept.move_to_end(part.path)
                return local
            await self._storage.fetch(part.path, local)
            await asyncio.get_running_loop().run_in_executor(self._pool, verify, local)
            self._kept[part.path] = part.bytes
            self._bytes += part.bytes
            self._make_room(part.path)
        self._locks.pop(part.path, None)
        return local

    def drop(self, path: str) -> None:
        size = self._kept.pop(path, None)
        if size is not None:
            self._bytes -= size
            (self._directory / path.replace("/", "_")).unlink(missing_ok=True)

    def _make_room(self, newest: str) -> None:
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            if oldest == newest:
                return
            log.info("cache full, dropping a file", path=oldest, bytes_max=self._bytes_max)
            self.drop(oldest)
