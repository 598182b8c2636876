"""Saying again and again that one goes on, while copying takes its time: what is held ends by itself otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mishards.errors import MishardsError

HOLD_S = 600.0  # a killed command holds what it held so long
RENEW_S = 60.0


@asynccontextmanager
async def renewed(renew: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Renew while the block runs. An outage shorter than HOLD_S does no harm; whether one was longer is seen at the
    end, by what the block does last."""
    renewing = asyncio.create_task(_repeat(renew))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing


async def _repeat(renew: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        with contextlib.suppress(MishardsError):
            await renew()
