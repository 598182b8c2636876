"""The shards this writer owns (P2): taken at their first write, renewed while it lives, given back at its stop.

A lease only keeps others away. What protects the data is the nonce, which each commit proves: a writer whose lease was
taken over meanwhile is told FENCED by his next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakValueDictionary

import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, NodeId
from mishards.ports import MetadataStore

_log = structlog.get_logger(__name__)

SHARD_LEASES = "shard/"  # how their names begin
RENEWALS_PER_LEASE = 3  # so that two may be lost
SEAL_S_MAX = 60.0  # a seal of another writer's shard may be done by a third one after it


class Shard(NamedTuple):
    """The unit of write ownership."""

    collection_id: CollectionId
    number: int

    @property
    def lease_name(self) -> str:
        return f"{SHARD_LEASES}{self.collection_id}/{self.number}"


class ShardLeases:
    """The nonces of the shards held. Their names in paths and commits are what makes a writer's work his (P1, I1)."""

    def __init__(
        self,
        store: MetadataStore,
        node_id: NodeId,
        clock: Clock,
        lease_s: float,
        is_live: Callable[[CollectionId], bool],
    ) -> None:
        """`is_live`: whether a collection still exists; the shards of one that does not are let go."""
        self._store = store
        self._node_id = node_id
        self._clock = clock
        self._lease_s = lease_s
        self._is_live = is_live
        self._nonces: dict[Shard, str] = {}
        self._acquiring: WeakValueDictionary[Shard, asyncio.Lock] = WeakValueDictionary()
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

    def held(self) -> list[Shard]:
        return list(self._nonces)

    async def hold(self, shard: Shard) -> str:
        """The nonce of the shard, which is taken if it is free. NOT_OWNER (detail: the owner) when another has it."""
        nonce = self._nonces.get(shard)
        if nonce is not None:
            return nonce
        async with self._acquiring.setdefault(shard, asyncio.Lock()):
            if shard in self._nonces:
                return self._nonces[shard]
            try:
                lease = await self._store.acquire(shard.lease_name, self._node_id, self._clock.token(), self._lease_s)
            except MishardsError as error:
                if error.kind is not Kind.LEASE_HELD:
                    raise
                message = f"shard {shard.number} of collection {shard.collection_id} is owned by {error.detail}"
                raise MishardsError(Kind.NOT_OWNER, message, error.detail) from error
            self._nonces[shard] = lease.nonce
            return lease.nonce

    @asynccontextmanager
    async def claim_seal(self, shard: Shard) -> AsyncIterator[tuple[str, str]]:
        """The lease (name, nonce) to seal a shard under: its own, or one for this seal alone when this writer does not
        own the shard, since any writer may flush it. LEASE_HELD: another one seals it right now."""
        nonce = self._nonces.get(shard)
        if nonce is not None:
            try:
                yield shard.lease_name, nonce
            except MishardsError as error:
                if error.kind is Kind.FENCED:
                    self.forget(shard)
                raise
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
        owned = {lease.name for lease in await self._store.leases(SHARD_LEASES)}
        return [shard for shard in shards if shard.lease_name not in owned]

    def forget(self, shard: Shard) -> None:
        """The nonce is worth nothing any more: the next `hold` takes a fresh one, which fences whatever the old one may
        still have on its way."""
        self._nonces.pop(shard, None)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS_PER_LEASE)
            try:
                await self._renew()
            except MishardsError as error:
                _log.warning("shard leases not renewed", error=error.message)

    async def _renew(self) -> None:
        for shard in [shard for shard in self._nonces if not self._is_live(shard.collection_id)]:
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

    async def _release(self, shard: Shard) -> None:
        nonce = self._nonces.pop(shard, None)
        if nonce is None:
            return
        try:
            await self._store.release(shard.lease_name, nonce)
        except MishardsError as error:
            _log.warning("shard lease not given back, it will run out", shard=shard, error=error.message)
