"""Forgets what became of clients' requests when nobody repeats them any more. Every writer does it, without harm."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mishards.errors import MishardsError
from mishards.ports import MetadataStore

_log = structlog.get_logger(__name__)

KEPT_S = 600.0  # longer than a proxy works on any request
INTERVAL_S = 30.0
BATCH = 5_000  # in one transaction, which others wait for (P15)


class Forgetting:
    """The loop of one writer."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="forgetting requests")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                while await self._store.forget_requests(KEPT_S, BATCH) == BATCH:
                    continue
            except MishardsError as error:
                _log.debug("requests not forgotten", error=error.message)
