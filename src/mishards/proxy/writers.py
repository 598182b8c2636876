"""Finding the writer that owns a shard (P2).

Placement says who should own it; the writer itself says who does (NOT_OWNER names it). After a loss the request is
repeated, to whoever owns the shard by then, as long as its deadline lasts: it carries an id, so that it takes effect
once (P3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, Member, NodeId
from mishards.proxy.together import all_of
from mishards.wire.membership import Membership
from mishards.wire.ownership import Ownership
from mishards.wire.peers import Peers
from mishards.wire.services import WriterService

R = TypeVar("R")

AGAIN = frozenset({Kind.PEER_LOST, Kind.NOT_OWNER, Kind.LEASE_HELD, Kind.FENCED, Kind.UNAVAILABLE})
MEMBER_WAIT_S = 10.0  # for the first writer to be known
LOST_S = 2.0  # a writer that was lost is not asked before, if there is another: it may take over
SILENT_S_MAX = 10.0  # longer than a lease, so that another writer has it by then
OWNERS_MAX = 100_000  # shards whose owners are remembered
PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.25)  # before the n-th try; the last one repeats

OwnerCall = Callable[[WriterService, Sequence[int], float], Awaitable[R]]


async def answered(call: Awaitable[R], left_s: float = float("inf"), silent_s: float = SILENT_S_MAX) -> R:
    """The answer of a writer. PEER_LOST when it is silent for long, a paused process perhaps: it may be asked again, or
    another one in its place, when what it was asked for carries an id. A writer that is only slow works on, and gives
    the repetition the answer of the first. DEADLINE when the request's time is up before."""
    try:
        async with asyncio.timeout(min(left_s, silent_s)):
            return await call
    except TimeoutError as error:
        if left_s <= silent_s:
            raise MishardsError(Kind.DEADLINE, f"the writer has not answered within {left_s:g} s") from error
        raise MishardsError(Kind.PEER_LOST, f"the writer has not answered for {silent_s:g} s") from error


class Writers:
    """The writers as this proxy sees them."""

    def __init__(self, membership: Membership, peers: Peers, ownership: Ownership, clock: Clock) -> None:
        self._membership = membership
        self._peers = peers
        self._ownership = ownership
        self._clock = clock
        self._owners: dict[tuple[CollectionId, int], NodeId] = {}
        self._lost_until: dict[NodeId, float] = {}

    async def ask_owners(
        self, collection: Collection, shards: Sequence[int], call: OwnerCall[R], deadline_s: float
    ) -> list[R]:
        """One call per owner with its shards, repeated after a loss. `call` gets the writer, its shards and the seconds
        left. The first failure is raised; what other owners did meanwhile is theirs to say."""
        await self._membership.wait_for("writer", min(MEMBER_WAIT_S, deadline_s - self._clock.monotonic_s()))
        groups: dict[NodeId, list[int]] = {}
        for shard in shards:
            groups.setdefault(self._owner(collection, shard), []).append(shard)
        answers = await all_of([self._ask(collection, mine, call, deadline_s) for mine in groups.values()])
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
        collection: Collection,
        shards: Sequence[int],
        call: OwnerCall[R],
        deadline_s: float,
        tries: int = 0,
    ) -> list[R]:
        redirected = False
        while True:
            owner = NodeId("")
            try:
                owner = self._owner(collection, shards[0])
                member = next((member for member in self._members() if member.id == owner), None)
                if member is None:
                    raise MishardsError(Kind.PEER_LOST, f"writer {owner} has left")
                reply = await call(self._peers.writer(member), shards, deadline_s - self._clock.monotonic_s())
            except MishardsError as error:
                if error.kind not in AGAIN:
                    raise
                if error.kind is Kind.PEER_LOST:
                    self._lost_until[owner] = self._clock.monotonic_s() + LOST_S
                self._learn(collection.id, shards, error)
                await self._pause(tries, deadline_s, error)
                tries += 1
                if error.kind is Kind.NOT_OWNER and redirected and len(shards) > 1:  # they have several owners
                    alone = [self._ask(collection, [shard], call, deadline_s, tries) for shard in shards]
                    return [reply for replies in await all_of(alone) for reply in replies]
                redirected = error.kind is Kind.NOT_OWNER
            else:
                return [reply]

    def _owner(self, collection: Collection, shard: int) -> NodeId:
        known = self._owners.get((collection.id, shard))
        now_s = self._clock.monotonic_s()
        members = self._members()
        if known is not None and any(member.id == known for member in members):
            return known
        members = tuple(m for m in members if self._lost_until.get(m.id, 0.0) <= now_s) or members
        return self._ownership.owners(collection.id, collection.shards, members)[shard]

    def _learn(self, collection_id: CollectionId, shards: Sequence[int], error: MishardsError) -> None:
        """NOT_OWNER names the owner; anything else makes us forget what we believed."""
        if len(self._owners) >= OWNERS_MAX:
            self._owners.clear()
        for shard in shards:
            self._owners.pop((collection_id, shard), None)
            if error.kind is Kind.NOT_OWNER and error.detail:
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
