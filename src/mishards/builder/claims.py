"""Claims: a task is worked on under a lease, so that builders do not do each other's work.

A claim saves effort; safety comes from the layout commit, which also fails when the claim's nonce has changed (P5):
work whose claim is lost is given up. The nonce is the token of the paths of everything that the attempt uploads (P1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import NodeId
from mishards.ports import MetadataStore

RENEWALS = 3  # in one time to live: two may fail

log = structlog.get_logger()


class Claim(msgspec.Struct, frozen=True):
    """A name that is ours while the nonce holds."""

    name: str
    nonce: str


class Claims:
    """Takes leases for one node and keeps them while the work goes on."""

    def __init__(self, store: MetadataStore, node_id: NodeId, clock: Clock, ttl_s: float) -> None:
        self._store = store
        self._node_id = node_id
        self._clock = clock
        self._ttl_s = ttl_s

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Claim]:
        """A claim, renewed until the block ends and then given back. LEASE_HELD if another node has it, FENCED when
        another has taken it meanwhile: then the block is cancelled."""
        claim = Claim(name, self._clock.token())
        await self._store.acquire(name, self._node_id, claim.nonce, self._ttl_s)
        scope = asyncio.timeout(None)
        renewal = asyncio.create_task(self._renew(claim, scope), name=f"renew {name}")
        try:
            async with scope:
                yield claim
        except TimeoutError as error:
            if scope.expired():
                raise MishardsError(Kind.FENCED, f"claim {name} is lost") from error
            raise
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            with suppress(MishardsError):  # it expires by itself
                await self._store.release(name, claim.nonce)

    async def held_elsewhere(self, prefix: str) -> bool:
        """Whether another node has a claim whose name begins so."""
        return any(lease.owner != self._node_id for lease in await self._store.leases(prefix))

    async def _renew(self, claim: Claim, scope: asyncio.Timeout) -> None:
        """Renew until the claim is lost, then end the work."""
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS)
            try:
                if not await self._store.renew([(claim.name, claim.nonce)], self._ttl_s):
                    log.warning("claim lost", lease=claim.name)
                    scope.reschedule(asyncio.get_running_loop().time())
                    return
            except MishardsError as error:
                log.warning("claim not renewed", lease=claim.name, error=error.message)
