"""Who is in the cluster as this process sees it: discovery's latest snapshot, kept by one task (P16).

Membership decides placement and changes slowly; health (`proxy/readers.py`) decides routing and changes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from mishards.model import Member, Role
from mishards.ports import Discovery

log = structlog.get_logger(__name__)

RETRY_S = 1.0


class Membership:
    """The live members, sorted by id. `epoch` grows with each change; callbacks run on the loop."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._members: tuple[Member, ...] = ()
        self._found: dict[tuple[Role, bool], tuple[Member, ...]] = {}  # answers of `of`, until the members change
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._changed = asyncio.Event()  # set and replaced with each change
        self.epoch = 0

    async def start(self) -> None:
        """Follow discovery; returns with the first snapshot."""
        self._task = asyncio.create_task(self._follow())
        await self._first.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def members(self) -> tuple[Member, ...]:
        return self._members

    def of(self, role: Role, *, draining: bool = False) -> tuple[Member, ...]:
        """The members with a role; draining ones only when asked for (they serve, but are not placed on)."""
        found = self._found.get((role, draining))
        if found is None:  # asked for by every search, changed by the hour
            found = tuple(m for m in self._members if role in m.roles and (draining or m.state == "ready"))
            self._found[role, draining] = found
        return found

    async def wait_for(self, role: Role, wait_s: float) -> bool:
        """Whether there is a member with the role, now or within `wait_s`: a cluster's processes start side by side."""
        if not self.of(role, draining=True):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not self.of(role, draining=True):
                        await self._changed.wait()
        return bool(self.of(role, draining=True))

    def on_change(self, callback: Callable[[], None]) -> None:
        self._listeners.append(callback)

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
                return  # discovery was closed
            except Exception:  # a defect in a back end must not end the following
                log.exception("following discovery failed")
                await asyncio.sleep(RETRY_S)

    async def _follow_once(self) -> None:
        async for snapshot in self._discovery.watch():
            members = tuple(sorted(snapshot, key=lambda member: member.id))
            self._first.set()
            if _shape(members) == _shape(self._members):
                continue
            self._members = members
            self._found = {}
            self.epoch += 1
            self._changed.set()
            self._changed = asyncio.Event()
            log.debug("members", nodes=[member.id for member in members], epoch=self.epoch)
            for listener in self._listeners:
                try:
                    listener()
                except Exception:  # the others must hear of this change, which will not be told again
                    log.exception("a listener failed")


def _shape(members: tuple[Member, ...]) -> list[tuple[object, ...]]:
    """What of the members matters to routing and placement; heartbeats do not."""
    return [(m.id, m.incarnation, m.address, m.state, m.weight, m.roles) for m in members]
