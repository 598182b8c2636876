"""Work of a reader in its threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from mishards.errors import Kind, MishardsError

T = TypeVar("T")


async def in_pool(pool: Executor, work: Callable[..., T], *arguments: object) -> T:
    """The result of the work. UNAVAILABLE: the pool is shut, this reader stops."""
    try:
        future = asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
    except RuntimeError as error:
        raise MishardsError(Kind.UNAVAILABLE, "this reader stops") from error
    return await future
