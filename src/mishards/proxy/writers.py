"""Finding the writer that owns a shard (P2).

Placement says who should own it; the writer itself says who does (NOT_OWNER names it). A lost writer is asked again
until another one can take its lease over, as long as the request's deadline lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, Member, NodeId
from mishards.ports import Item, Router
from mishards.proxy.together import all_of
from mishards.wire.membership import Membership
from mishards.wire.peers import Peers
from mishards.wire.services import WriterService

R = TypeVar("R")

AGAIN = frozenset({Kind.PEER_LOST, Kind.NOT_OWNER, Kind.LEASE_HELD, Kind.FENCED, Kind.UNAVAILABLE})
MEMBER_WAIT_S = 10.0  # for the first writer to be known
LOST_S = 2.0  # a writer that was lost is not asked before, if there is another: it may take over
OWNERS_MAX = 100_000  # shards whose owners are remembered
PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.5)  # before the n-th try; the last one repeats

OwnerCall = Callable[[WriterService, Sequence[int], bool, float], Awaitable[R]]


class Writers:
    """The writers as this proxy sees them."""

    def __init__(self, membership: Membership, peers: Peers, router: Router, clock: Clock) -> None:
        self._membership = membership
        self._peers = peers
        self._router = router
        self._clock = clock
        self._owners: dict[tuple[CollectionId, int], NodeId] = {}
        self._lost_until: dict[NodeId, float] = {}

    async def ask_owners(
        self, collection_id: CollectionId, shards: Sequence[int], call: OwnerCall[R], deadline_s: float
    ) -> list[R]:
        """One call per owner with its shards. `call` gets the writer, its shards, whether it may be a repetition, and
        the seconds left."""
        await self._membership.wait_for("writer", MEMBER_WAIT_S)
        groups: dict[NodeId, list[int]] = {}
        for shard in shards:
            groups.setdefault(self._owner(collection_id, shard), []).append(shard)
        answers = await all_of([self._ask(collection_id, mine, call, deadline_s) for mine in groups.values()])
        return [reply for replies in answers for reply in replies]

    async def ask_any(self, call: Callable[[WriterService], Awaitable[R]], deadline_s: float) -> R:
        """DDL: any writer will do."""
        await self._membership.wait_for("writer", MEMBER_WAIT_S)
        tries = 0
        while True:
            members = self._members()
            member = members[tries % len(members)]
            try:
                return await call(self._peers.writer(member))
            except MishardsError as error:
                if error.kind not in (Kind.PEER_LOST, Kind.UNAVAILABLE):
                    raise
                await self._pause(tries, deadline_s, error)
            tries += 1

    async def _ask(
        self,
        collection_id: CollectionId,
        shards: Sequence[int],
        call: OwnerCall[R],
        deadline_s: float,
        tries: int = 0,
        retried: bool = False,
    ) -> list[R]:
        while True:
            owner = NodeId("")
            try:
                owner = self._owner(collection_id, shards[0])
                member = next((member for member in self._members() if member.id == owner), None)
                if member is None:
                    raise MishardsError(Kind.PEER_LOST, f"writer {owner} has left")
                reply = await call(self._peers.writer(member), shards, retried, deadline_s - self._clock.monotonic_s())
            except MishardsError as error:
                if error.kind not in AGAIN:
                    raise
                if error.kind is Kind.PEER_LOST:
                    retried = True
                    self._lost_until[owner] = self._clock.monotonic_s() + LOST_S
                self._learn(collection_id, shards, error)
                await self._pause(tries, deadline_s, error)
                tries += 1
                if error.kind is Kind.NOT_OWNER and len(shards) > 1:  # it owned some of them, perhaps
                    alone = [self._ask(collection_id, [shard], call, deadline_s, tries, retried) for shard in shards]
                    return [reply for replies in await all_of(alone) for reply in replies]
            else:
                return [reply]

    def _owner(self, collection_id: CollectionId, shard: int) -> NodeId:
        known = self._owners.get((collection_id, shard))
        now_s = self._clock.monotonic_s()
        members = self._members()
        if known is not None and any(member.id == known for member in members):
            return known
        members = tuple(m for m in members if self._lost_until.get(m.id, 0.0) <= now_s) or members
        if len(members) == 1:
            return members[0].id
        key = f"shard:{collection_id}/{shard}"
        return self._router.place(members, [Item(key, 1)], 1)[key][0]

    def _learn(self, collection_id: CollectionId, shards: Sequence[int], error: MishardsError) -> None:
        """NOT_OWNER names the owner; anything else makes us forget what we believed."""
        if len(self._owners) >= OWNERS_MAX:
            self._owners.clear()
        for shard in shards:
            self._owners.pop((collection_id, shard), None)
            if error.kind is Kind.NOT_OWNER and error.detail and len(shards) == 1:
                self._owners[collection_id, shard] = NodeId(error.detail)

    def _members(self) -> tuple[Member, ...]:
        members = self._membership.of("writer") or self._membership.of("writer", draining=True)
        if not members:
            raise MishardsError(Kind.UNAVAILABLE, "no writer is available: 0 writers are in the cluster")
        return members

    async def _pause(self, tries: int, deadline_s: float, error: MishardsError) -> None:
        pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
        if self._clock.monotonic_s() + pause_s >= deadline_s:
            raise MishardsError(
                Kind.UNAVAILABLE, f"no writer took the request in time, last: {error.message}"
            ) from error
        await asyncio.sleep(pause_s)
