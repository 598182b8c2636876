"""The writers that this one shares the shards with, and which shards should be whose (P2).

Discovery lists a writer for a while after its death. One that did not answer counts as silent until it does or starts
anew: nobody waits for it, and nothing is handed over to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from mishards.clock import Clock
from mishards.errors import MishardsError
from mishards.model import Member, NodeId
from mishards.wire.membership import Membership
from mishards.wire.messages import Nothing
from mishards.wire.ownership import Ownership
from mishards.wire.peers import Peers
from mishards.writer.shard import Shard

ANSWER_S_MAX = 2.0  # of a writer that lives, on a busy machine


class Others(Protocol):
    """What a writer knows of its like."""

    def owner(self, shard: Shard, shards: int) -> NodeId | None:
        """Who should own this one of a collection's `shards`, of the writers that seem to live; None: nobody is known,
        and whoever asks may."""
        ...

    def suspect(self, node: NodeId) -> None:
        """It is silent from now on: its leases ran out long ago."""
        ...

    async def answers(self, node: NodeId) -> bool:
        """Whether it does now; if not, it is silent from now on."""
        ...

    async def reconsider(self) -> None:
        """Ask the silent ones again."""
        ...

    def settled_s(self) -> float:
        """For how long the writers that live have been the same."""
        ...

    def leave(self) -> None:
        """From now on this writer is none of those that should own a shard."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None: ...


class Fellows:
    """`Others` by membership, leases and asking."""

    def __init__(
        self, node_id: NodeId, membership: Membership, peers: Peers, ownership: Ownership, clock: Clock
    ) -> None:
        self._node_id = node_id
        self._membership = membership
        self._peers = peers
        self._ownership = ownership
        self._clock = clock
        self._silent: dict[NodeId, str] = {}  # incarnation
        self._live: tuple[tuple[NodeId, str], ...] = ()
        self._since_s = clock.monotonic_s()
        self._left = False

    def owner(self, shard: Shard, shards: int) -> NodeId | None:
        live = self._writers()
        if not live or shard.number >= shards:
            return None
        return self._ownership.owners(shard.collection_id, shards, live)[shard.number]

    def suspect(self, node: NodeId) -> None:
        member = self._member(node)
        if member is not None and node != self._node_id:
            self._silent[node] = member.incarnation

    async def answers(self, node: NodeId) -> bool:
        member = self._member(node)
        if member is None:
            return False
        with contextlib.suppress(MishardsError, TimeoutError):
            async with asyncio.timeout(ANSWER_S_MAX):
                status = await self._peers.node(member).status(Nothing())
                if status.node == node:  # another process may have the port of a dead one
                    self._silent.pop(node, None)
                    return True
        self.suspect(node)
        return False

    async def reconsider(self) -> None:
        listed = {member.id for member in self._membership.of("writer")}
        self._silent = {node: incarnation for node, incarnation in self._silent.items() if node in listed}
        await asyncio.gather(*(self.answers(node) for node in self._silent))

    def settled_s(self) -> float:
        live = tuple((member.id, member.incarnation) for member in self._writers())
        if live != self._live:
            self._live, self._since_s = live, self._clock.monotonic_s()
        return self._clock.monotonic_s() - self._since_s

    def leave(self) -> None:
        self._left = True

    def on_change(self, callback: Callable[[], None]) -> None:
        self._membership.on_change(callback)

    def _member(self, node: NodeId) -> Member | None:
        return next((member for member in self._membership.of("writer") if member.id == node), None)

    def _writers(self) -> tuple[Member, ...]:
        """Those that live, as far as is known; one that drains does not count."""
        return tuple(
            member
            for member in self._membership.of("writer")
            if self._silent.get(member.id) != member.incarnation and not (self._left and member.id == self._node_id)
        )
