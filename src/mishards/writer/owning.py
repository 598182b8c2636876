"""Bringing the shards to the writers that should own them (P2).

A look reads the leases and takes what is this writer's: shards handed over to it or left by its former life at once,
shards of a dead writer the moment their leases run out. What should be another's is handed over to him, when the
writers have been the same for a while and he answers, a few shards at a time, so that a member that comes and goes
moves nothing. Shards that nobody has written yet are taken by their first write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog

from mishards.errors import MishardsError
from mishards.model import CollectionId, NodeId
from mishards.ports import Lease
from mishards.writer.leases import ShardCount, ShardLeases
from mishards.writer.others import Others
from mishards.writer.shard import SHARD_LEASES, Shard

_log = structlog.get_logger(__name__)

LOOKS_PER_LEASE = 5
PAUSE_S_MIN = 0.05
SETTLED_LEASES = 0.5  # of a lease's time the writers must have been the same before a hand-over
HAND_OVERS_MAX = 8  # in one look


class Wish(NamedTuple):
    """What one look leads to."""

    take: list[Shard]
    give: dict[Shard, NodeId]


class Owning:
    """The loop of one writer."""

    def __init__(
        self, node_id: NodeId, leases: ShardLeases, others: Others, shard_count: ShardCount, lease_s: float
    ) -> None:
        self._node_id = node_id
        self._leases = leases
        self._others = others
        self._shard_count = shard_count
        self._lease_s = lease_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._others.on_change(self._wake.set)
        self._task = asyncio.create_task(self._run(), name="owning shards")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def leave(self) -> None:
        """Hand every shard to who should own it without this writer. `ShardLeases.stop` gives back what is left."""
        self._others.leave()
        await self._give({shard: to for shard in self._leases.held() if (to := self._owner(shard)) is not None})

    async def look(self) -> float:
        """Take and hand over what is to be; the seconds until the next look. METADATA_UNAVAILABLE."""
        await self._others.reconsider()
        leases = by_shard(await self._leases.seen())
        seen = {
            shard: lease for shard, lease in leases.items() if shard.number < self._shard_count(shard.collection_id)
        }
        await self._doubt(seen.values())
        held = set(self._leases.held())
        owners = {shard: self._owner(shard) for shard in held | seen.keys()}
        wish = wished(self._node_id, seen, held, owners)
        for shard in wish.take:
            with contextlib.suppress(MishardsError):  # another one was faster
                await self._leases.take(shard)
        if self._others.settled_s() >= SETTLED_LEASES * self._lease_s:
            idle = [(shard, to) for shard, to in wish.give.items() if not self._leases.sealing(shard)]
            await self._give(dict(idle[:HAND_OVERS_MAX]))
        return next_look_s(self._node_id, seen, self._lease_s / LOOKS_PER_LEASE)

    async def _doubt(self, leases: Iterable[Lease]) -> None:
        """Whose lease has run out is asked. One that lives will renew it, as after an outage of the metadata service,
        when all have run out; but not for ever."""
        late = {lease.owner: lease.left_s for lease in leases if lease.left_s <= 0 and lease.owner != self._node_id}
        answers = await asyncio.gather(*map(self._others.answers, late))
        for (owner, left_s), answered in zip(late.items(), answers, strict=True):
            if answered and left_s < -self._lease_s:
                self._others.suspect(owner)

    async def _run(self) -> None:
        pause_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()
            pause_s = self._lease_s / LOOKS_PER_LEASE
            try:
                pause_s = await self.look()
            except MishardsError as error:
                _log.debug("leases not seen", error=error.message)
            except Exception:  # a defect must not end the looking
                _log.exception("leases not seen")

    def _owner(self, shard: Shard) -> NodeId | None:
        return self._others.owner(shard, self._shard_count(shard.collection_id))

    async def _give(self, shards: Mapping[Shard, NodeId]) -> None:
        targets = sorted(set(shards.values()))
        alive = dict(zip(targets, await asyncio.gather(*map(self._others.answers, targets)), strict=True))
        await asyncio.gather(*(self._hand_over(shard, to) for shard, to in shards.items() if alive[to]))

    async def _hand_over(self, shard: Shard, to: NodeId) -> None:
        try:
            await self._leases.hand_over(shard, to)
        except MishardsError as error:
            _log.warning("shard not handed over", shard=shard, to=to, error=error.message)
        else:
            _log.info("shard handed over", collection=shard.collection_id, shard=shard.number, to=to)


def wished(me: NodeId, seen: Mapping[Shard, Lease], held: set[Shard], owners: Mapping[Shard, NodeId | None]) -> Wish:
    """Pure. `owners`: who should own each shard that is seen or held."""
    mine = [shard for shard, lease in seen.items() if lease.owner == me]
    left = [shard for shard, lease in seen.items() if lease.owner != me and lease.left_s <= 0 and owners[shard] == me]
    give = {shard: owner for shard in sorted(held) if (owner := owners[shard]) is not None and owner != me}
    return Wish([shard for shard in mine + left if shard not in held], give)


def next_look_s(me: NodeId, seen: Mapping[Shard, Lease], usual_s: float) -> float:
    """Pure. The moment that another writer's lease runs out, if that is soon."""
    left = [lease.left_s for lease in seen.values() if lease.owner != me and lease.left_s > 0]
    return max(PAUSE_S_MIN, min([usual_s, *left]))


def by_shard(leases: Iterable[Lease]) -> dict[Shard, Lease]:
    found = {}
    for lease in leases:
        collection_id, _, number = lease.name.removeprefix(SHARD_LEASES).partition("/")
        found[Shard(CollectionId(int(collection_id)), int(number))] = lease
    return found
