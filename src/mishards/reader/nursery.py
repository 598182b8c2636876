"""Where interim indexes are made: for what searches have found without an index, one after another, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from mishards.reader.interims import Interims, Key
from mishards.reader.source import Source

log = structlog.get_logger(__name__)


class Nursery:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[Interims, Key], Source] = {}  # the newest source of each
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def idle(self) -> None:
        """Everything wanted so far is made."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def tend(self, sources: Sequence[Source], field_id: int, metric: str, index_id: int, dim: int) -> None:
        """Called after a search through an index: what it had to search exactly gets an interim one, if worth it."""
        for source in sources:
            if source.index(index_id) is None and source.interims.lags(field_id, metric, source.rows, dim):
                self._wanted[source.interims, (field_id, metric)] = source
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._wanted:
            (interims, (field_id, metric)), source = self._wanted.popitem()
            try:
                ready = source.prepared(field_id, metric)
                await asyncio.to_thread(interims.grow, field_id, metric, ready)
            except Exception:
                log.exception("interim index failed; these rows are searched exactly", rows=source.rows)
