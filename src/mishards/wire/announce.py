"""Pushing news to every other process, as a hint: nobody waits, nothing is repeated (P9, I16)."""

from __future__ import annotations

import asyncio

from mishards.errors import MishardsError
from mishards.model import Member, NodeId
from mishards.wire.membership import Membership
from mishards.wire.messages import Notice
from mishards.wire.peers import Peers

IN_FLIGHT_MAX = 32  # pushes under way to one member; more are left out, its slow poll makes up for them


class Announcer:
    """Sends notices to all members but this one."""

    def __init__(self, node_id: NodeId, membership: Membership, peers: Peers) -> None:
        self._node_id = node_id
        self._membership = membership
        self._peers = peers
        self._tasks: dict[NodeId, set[asyncio.Task[None]]] = {}

    def announce(self, notice: Notice) -> None:
        for member in self._membership.members():
            under_way = self._tasks.get(member.id, ())
            if member.id == self._node_id or len(under_way) >= IN_FLIGHT_MAX:
                continue
            task = asyncio.create_task(self._push(member, notice))
            self._tasks.setdefault(member.id, set()).add(task)
            task.add_done_callback(lambda done, to=member.id: self._pushed(to, done))  # type: ignore[misc]

    async def stop(self) -> None:
        tasks = [task for under_way in self._tasks.values() for task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pushed(self, to: NodeId, done: asyncio.Task[None]) -> None:
        self._tasks[to].discard(done)
        if not self._tasks[to]:
            del self._tasks[to]

    async def _push(self, member: Member, notice: Notice) -> None:
        try:
            await self._peers.node(member).notify(notice)
        except MishardsError:
            return  # it will poll
