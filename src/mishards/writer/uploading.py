"""Several objects stored at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

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
