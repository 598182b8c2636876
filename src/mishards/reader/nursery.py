"""Where interim indexes are made: for what searches have found without a good one, one after another, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from mishards.reader.interims import Key
from mishards.reader.joints import Joints, Plan, made
from mishards.reader.source import Source

log = structlog.get_logger(__name__)


class Nursery:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[Joints, Key], list[Sequence[Source]]] = {}  # by the newest search
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

    def tend(self, joints: Joints, key: Key, sources: Sequence[Source], plan: Plan) -> None:
        """Called after a search by the plan: what has no interim index, or lags behind, gets a new one."""
        if not plan.wanted:
            return
        self._wanted[joints, key] = [[sources[number] for number in members] for members in plan.wanted]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._wanted:
            (joints, key), groups = self._wanted.popitem()
            for sources in groups:
                try:
                    joints.add(key, await asyncio.to_thread(made, key, sources))
                except Exception:
                    rows = sum(source.rows for source in sources)
                    log.exception("interim index failed; these rows are searched exactly", rows=rows)
