"""Several objects stored at once, and deleted again when no commit lists them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

from mishards.errors import MishardsError
from mishards.model import File
from mishards.ports import Storage

UPLOADS_AT_ONCE = 8


async def put_all(puts: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do all puts, a few at a time; the first failure cancels the others and is raised."""
    room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def run(put: Callable[[], Awaitable[None]]) -> None:
        async with room:
            await put()

    try:
        async with asyncio.TaskGroup() as tasks:
            for put in puts:
                tasks.create_task(run(put))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def discard(storage: Storage, files: Iterable[File]) -> None:
    """Delete the objects of files whose commit was refused, as far as storage allows."""
    await delete_all(storage, [part.path for file in files for part in file.parts if part.path])


async def delete_all(storage: Storage, paths: Sequence[str]) -> None:
    """Delete objects that no commit lists, as far as storage allows."""
    with contextlib.suppress(MishardsError):
        await storage.delete(paths)
