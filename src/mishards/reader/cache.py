"""The local disk cache: private copies of storage objects, verified, mapped, dropped when room is needed (P1).

Nothing in it is needed for correctness. A file that is mapped may be unlinked: the mapping stays valid. One that is to
be mapped is pinned until it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from mishards.errors import MishardsError
from mishards.model import Part
from mishards.ports import Storage
from mishards.reader.pools import in_pool
from mishards.segment.footer import verify

log = structlog.get_logger(__name__)


class DiskCache:
    """Local copies by storage path, at most `bytes_max` beside those pinned. One download at a time per object."""

    def __init__(self, storage: Storage, directory: Path, bytes_max: int, pool: Executor) -> None:
        self._storage = storage
        self._directory = directory
        self._bytes_max = bytes_max
        self._pool = pool
        self._kept: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._pins: Counter[str] = Counter()
        self._fetching: dict[str, asyncio.Task[None]] = {}

    @property
    def bytes(self) -> int:
        return self._bytes

    def clear(self) -> None:
        """Start empty: what an earlier process left is not trusted."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            path.unlink()

    @asynccontextmanager
    async def pinning(self, parts: Sequence[Part]) -> AsyncIterator[None]:
        """Within it, `get` of these parts gives files that stay."""
        paths = [part.path for part in parts]
        self._pins.update(paths)
        try:
            yield
        finally:
            self._pins -= Counter(paths)
            self._make_room()

    async def get(self, part: Part) -> Path:
        """A verified local copy. GONE when storage has it no more, STORAGE_UNAVAILABLE when it cannot be had now."""
        if part.path in self._kept:
            self._kept.move_to_end(part.path)
            return self._local(part.path)
        task = self._fetching.get(part.path)
        if task is None:
            task = self._fetching[part.path] = asyncio.create_task(self._fetch(part))
            task.add_done_callback(lambda done: self._fetched(part.path, done))
        await asyncio.shield(task)
        return self._local(part.path)

    async def stop(self) -> None:
        """End the downloads under way."""
        downloads = list(self._fetching.values())
        for task in downloads:
            task.cancel()
        await asyncio.gather(*downloads, return_exceptions=True)

    def drop(self, path: str) -> None:
        size = self._kept.pop(path, None)
        if size is not None:
            self._bytes -= size
            self._local(path).unlink(missing_ok=True)

    async def _fetch(self, part: Part) -> None:
        local = self._local(part.path)
        await self._storage.fetch(part.path, local)
        try:
            await in_pool(self._pool, verify, local)
        except MishardsError:
            local.unlink(missing_ok=True)
            raise
        self._kept[part.path] = part.bytes
        self._bytes += part.bytes
        self._make_room()

    def _fetched(self, path: str, done: asyncio.Task[None]) -> None:
        del self._fetching[path]
        if not done.cancelled():
            done.exception()  # seen, should nobody be waiting any more

    def _make_room(self) -> None:
        """Drop the least recently used of the files that are not pinned."""
        if self._bytes <= self._bytes_max:
            return
        for path in [path for path in self._kept if not self._pins[path]]:
            log.info("cache full, dropping a file", path=path, bytes_max=self._bytes_max)
            self.drop(path)
            if self._bytes <= self._bytes_max:
                return

    def _local(self, path: str) -> Path:
        return self._directory / path.replace("/", "_")
