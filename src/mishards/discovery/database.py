"""Discovery through the metadata service, `metadata://`: no further service to run.

Every node writes its record each `beat_s` with its `beat` counted up; every watcher reads all records each `poll_s` and
judges by `Presence` who lives. While the service is down the last view stays (P14) and the beats are tried again; also
while it can be read but not written: who cannot beat himself learns nothing from the silence of others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from msgspec.structs import replace

from mishards.discovery.context import Context
from mishards.discovery.presence import Presence
from mishards.errors import MishardsError
from mishards.model import Member, NodeId

log = structlog.get_logger(__name__)

PROBATION_BEATS = 3  # a live member surely beats within so many
FORGET_TIMEOUTS = 100  # a record silent for so many time-outs is deleted; a node that lives writes it again


def open_discovery(url: str, context: Context) -> DatabaseDiscovery:
    """Discovery through the metadata service of the context; the URL says no more."""
    return DatabaseDiscovery(context)


class DatabaseDiscovery:
    """`ports.Discovery`. One loop owns it; its one task beats for the registered members."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._mine: dict[NodeId, Member] = {}
        self._writing = asyncio.Lock()  # no beat in flight may bring back a member that was just forgotten
        self._beaten_s = 0.0  # monotonic, when a beat was last written
        self._beating: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def register(self, member: Member) -> None:
        """Announce or update this node. During an outage it is announced by a later beat."""
        beat = self._mine[member.id].beat if member.id in self._mine else member.beat
        self._mine[member.id] = replace(member, beat=beat)
        await self._beat()
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat_on(), name="discovery beat")

    async def deregister(self, node: NodeId) -> None:
        """Take the node back. During an outage its record stays and falls silent."""
        async with self._writing:
            self._mine.pop(node, None)
            try:
                await self._context.store.forget_member(node)
            except MishardsError as error:
                log.warning("deregistering failed", node=node, error=error.message)

    async def watch(self) -> AsyncIterator[tuple[Member, ...]]:
        """Full snapshots of the live members: the first at once (with the service down: once it is up), then on each
        change other than a heartbeat. Ends when closed."""
        context = self._context
        probation_s = min(PROBATION_BEATS * context.beat_s + context.poll_s, context.member_timeout_s)
        presence = Presence(context.member_timeout_s, probation_s, step_s=2 * context.poll_s)
        last: list[Member] | None = None
        while not self._closed.is_set():
            live = await self._look(presence)
            if live is not None:
                shape = [replace(member, beat=0) for member in live]
                if shape != last:
                    last = shape
                    yield live
            await self._pause(context.poll_s)

    async def close(self) -> None:
        """Stop beating and watching; a member that was not deregistered falls silent."""
        self._closed.set()
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating

    async def _look(self, presence: Presence) -> tuple[Member, ...] | None:
        """The live members; None when nothing can be learned now."""
        context = self._context
        try:
            recorded = await context.store.members()
            if not self._can_beat():
                return None
            live = presence.observe(recorded, context.clock.monotonic_s())
            for node in presence.silent_for(FORGET_TIMEOUTS * context.member_timeout_s):
                await context.store.forget_member(node)
        except MishardsError as error:
            log.debug("members unknown", error=error.message)
            return None
        return live

    def _can_beat(self) -> bool:
        """Whether our own beats arrive, or we have none to write."""
        return not self._mine or self._context.clock.monotonic_s() - self._beaten_s <= 2 * self._context.beat_s

    async def _beat_on(self) -> None:
        while not self._closed.is_set():
            await self._pause(self._context.beat_s)
            await self._beat()

    async def _beat(self) -> None:
        async with self._writing:
            for node in tuple(self._mine):
                self._mine[node] = member = replace(self._mine[node], beat=self._mine[node].beat + 1)
                try:
                    await self._context.store.beat(member)
                    self._beaten_s = self._context.clock.monotonic_s()
                except MishardsError as error:
                    log.warning("heartbeat failed", node=node, error=error.message)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
