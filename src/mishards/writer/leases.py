"""The shards this writer owns (P2): taken when they should be its own, renewed while it lives, handed over when they
should be another's.

A lease only keeps others away. What protects the data is the nonce, which each commit proves: a writer whose lease was
taken over meanwhile is told FENCED by his next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, NodeId
from mishards.ports import Lease, MetadataStore
from mishards.writer.others import Others
from mishards.writer.shard import SHARD_LEASES, Shard

_log = structlog.get_logger(__name__)

RENEWALS_PER_LEASE = 3  # so that two may be lost
SEAL_S_MAX = 60.0  # a seal of another writer's shard may be done by a third one after it
UNUSED_S_MAX = 5.0  # a hand-over waits that long for the writes under way; later ones are fenced, and sent elsewhere
DEAD_OWNER_PAUSE_S = 0.05

ShardCount = Callable[[CollectionId], int]


@dataclass(slots=True)
class _Leaving:
    """A shard that is being handed over. New writes wait, to be told whose it is."""

    unused: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class ShardLeases:
    """The nonces of the shards held. Their names in paths and commits are what makes a writer's work his (P1, I1)."""

    def __init__(
        self,
        store: MetadataStore,
        node_id: NodeId,
        clock: Clock,
        lease_s: float,
        shard_count: ShardCount,
        others: Others,
    ) -> None:
        """`shard_count` of a collection: 0 when it does not exist any more, and its shards are let go."""
        self._store = store
        self._node_id = node_id
        self._clock = clock
        self._lease_s = lease_s
        self._shard_count = shard_count
        self._others = others
        self._nonces: dict[Shard, str] = {}
        self._acquiring: WeakValueDictionary[Shard, asyncio.Lock] = WeakValueDictionary()
        self._leaving: dict[Shard, _Leaving] = {}
        self._users: Counter[Shard] = Counter()  # writes under way
        self._sealing: Counter[Shard] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._renew_forever(), name="shard leases")

    async def stop(self) -> None:
        """Give every shard back, so that the next owner need not wait for the lease to run out."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for shard in list(self._nonces):
            await self._release(shard)
        with contextlib.suppress(MishardsError):  # what others handed over meanwhile, as when all stop at once
            for lease in await self.seen():
                if lease.owner == self._node_id:
                    await self._store.release(lease.name, lease.nonce)

    def held(self) -> list[Shard]:
        return list(self._nonces)

    @property
    def leaving(self) -> int:
        """Shards that are being handed over."""
        return len(self._leaving)

    def sealing(self, shard: Shard) -> bool:
        """Whether a seal goes on under its nonce, which a hand-over would waste."""
        return self._sealing[shard] > 0

    # ----------------------------------------------------------------------------------------------------- taking

    @asynccontextmanager
    async def using(self, shards: Collection[Shard]) -> AsyncIterator[None]:
        """The shards are held, and stay while a write of theirs is under way. NOT_OWNER as `hold`."""
        while True:
            for shard in shards:
                while (leaving := self._leaving.get(shard)) is not None:
                    await leaving.over.wait()
                await self.hold(shard)
            if not any(shard in self._leaving for shard in shards):
                break
        self._users.update(shards)
        try:
            yield
        finally:
            self._users.subtract(shards)
            for shard in [shard for shard in shards if self._users[shard] == 0]:
                del self._users[shard]
                if shard in self._leaving:
                    self._leaving[shard].unused.set()

    async def hold(self, shard: Shard) -> str:
        """The nonce of the shard, which is taken when it is free and should be this writer's; if its owner is dead this
        waits until his lease runs out. NOT_OWNER (detail: the owner) when another has it, or should."""
        nonce = self._nonces.get(shard)
        if nonce is not None:
            return nonce
        async with self._acquiring.setdefault(shard, asyncio.Lock()):
            if shard not in self._nonces and not await self._should_take(shard):
                raise await self._not_mine(shard)
            while True:
                try:
                    return await self._acquire(shard)
                except MishardsError as error:
                    if error.kind is not Kind.NOT_OWNER or await self._others.answers(NodeId(error.detail)):
                        raise
                await asyncio.sleep(DEAD_OWNER_PAUSE_S)  # until the lease of the dead owner runs out

    async def take(self, shard: Shard) -> None:
        """Take a shard that is free or this writer's by name, unless a write is taking it. NOT_OWNER when it is
        neither."""
        lock = self._acquiring.setdefault(shard, asyncio.Lock())
        if not lock.locked():
            async with lock:
                await self._acquire(shard)

    async def _should_take(self, shard: Shard) -> bool:
        """Whether it should be this writer's. An owner that should be, but is dead, is passed over."""
        while True:
            owner = self._others.owner(shard, self._shard_count(shard.collection_id))
            if owner is None or owner == self._node_id:
                return True
            if await self._others.answers(owner):
                return False

    async def _not_mine(self, shard: Shard) -> MishardsError:
        """Who has the shard, by its lease; else who should. None of both is this writer's word against itself."""
        leases = await self._store.leases(shard.lease_name, True)
        lease = next((lease for lease in leases if lease.name == shard.lease_name), None)
        owner = self._others.owner(shard, self._shard_count(shard.collection_id)) or NodeId("")
        return _not_owner(shard, lease.owner if lease is not None and lease.left_s > 0 else owner)

    async def _acquire(self, shard: Shard) -> str:
        if shard in self._nonces:
            return self._nonces[shard]
        try:
            lease = await self._store.acquire(shard.lease_name, self._node_id, self._clock.token(), self._lease_s)
        except MishardsError as error:
            if error.kind is not Kind.LEASE_HELD:
                raise
            raise _not_owner(shard, NodeId(error.detail)) from error
        self._nonces[shard] = lease.nonce
        return lease.nonce

    # ------------------------------------------------------------------------------------------------- giving away

    async def hand_over(self, shard: Shard, to: NodeId) -> None:
        """Make the shard another writer's, when the writes under way are done. METADATA_UNAVAILABLE: perhaps it is."""
        nonce = self._nonces.get(shard)
        if nonce is None or shard in self._leaving:
            return
        leaving = self._leaving[shard] = _Leaving()
        try:
            if self._users[shard]:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(UNUSED_S_MAX):
                        await leaving.unused.wait()
            if self._nonces.get(shard) != nonce:
                return  # lost meanwhile
            del self._nonces[shard]
            await self._store.hand_over(shard.lease_name, nonce, to, self._clock.token(), self._lease_s)
        finally:
            del self._leaving[shard]
            leaving.over.set()

    def forget(self, shard: Shard) -> None:
        """The nonce is worth nothing any more: the next `hold` takes a fresh one, which fences whatever the old one may
        still have on its way."""
        self._nonces.pop(shard, None)

    async def _release(self, shard: Shard) -> None:
        nonce = self._nonces.pop(shard, None)
        if nonce is None:
            return
        try:
            await self._store.release(shard.lease_name, nonce)
        except MishardsError as error:
            _log.warning("shard lease not given back, it will run out", shard=shard, error=error.message)

    # ------------------------------------------------------------------------------------------------------- seals

    @asynccontextmanager
    async def claim_seal(self, shard: Shard) -> AsyncIterator[tuple[str, str]]:
        """The lease (name, nonce) to seal a shard under: its own, or one for this seal alone when this writer does not
        own the shard, since any writer may flush it. LEASE_HELD: another one seals it right now."""
        nonce = self._nonces.get(shard)
        if nonce is not None:
            self._sealing[shard] += 1
            try:
                yield shard.lease_name, nonce
            except MishardsError as error:
                if error.kind is Kind.FENCED:
                    self.forget(shard)
                raise
            finally:
                self._sealing[shard] -= 1
            return
        name, nonce = f"task/{shard.collection_id}/{shard.number}/seal", self._clock.token()
        await self._store.acquire(name, self._node_id, nonce, SEAL_S_MAX)
        try:
            yield name, nonce
        finally:
            with contextlib.suppress(MishardsError):  # it runs out by itself
                await self._store.release(name, nonce)

    async def unowned(self, shards: Iterable[Shard]) -> list[Shard]:
        """Those of the shards whose lease nobody has."""
        owned = {lease.name for lease in await self.seen() if lease.left_s > 0}
        return [shard for shard in shards if shard.lease_name not in owned]

    async def seen(self) -> list[Lease]:
        """The leases of all shards, also those that have run out."""
        return await self._store.leases(SHARD_LEASES, True)

    # ----------------------------------------------------------------------------------------------------- renewal

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS_PER_LEASE)
            try:
                await self._renew()
            except MishardsError as error:
                _log.warning("shard leases not renewed", error=error.message)

    async def _renew(self) -> None:
        for shard in [shard for shard in self._nonces if not self._shard_count(shard.collection_id)]:
            await self._release(shard)
        asked = dict(self._nonces)
        if not asked:
            return
        pairs = [(shard.lease_name, nonce) for shard, nonce in asked.items()]
        renewed = await self._store.renew(pairs, self._lease_s)
        for shard, nonce in asked.items():
            if shard.lease_name not in renewed and self._nonces.get(shard) == nonce:
                _log.warning("shard lost to another writer", collection=shard.collection_id, shard=shard.number)
                self.forget(shard)


def _not_owner(shard: Shard, owner: NodeId) -> MishardsError:
    message = f"shard {shard.number} of collection {shard.collection_id} is owned by {owner or 'another writer'}"
    return MishardsError(Kind.NOT_OWNER, message, owner)
