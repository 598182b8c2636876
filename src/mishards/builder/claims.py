"""Claims: a task is worked on under a lease, so that builders do not do each other's work.

A claim saves effort; safety comes from the layout commit, which also fails when the claim's nonce has changed (P5). The
nonce is the token of the paths of everything that the attempt uploads (P1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog

from mishards.clock import Clock
from mishards.errors import MishardsError
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
        """A claim, renewed until the block ends and then given back. LEASE_HELD if another node has it."""
        claim = Claim(name, self._clock.token())
        await self._store.acquire(name, self._node_id, claim.nonce, self._ttl_s)
        renewal = asyncio.create_task(self._renew(claim), name=f"renew {name}")
        try:
            yield claim
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            with suppress(MishardsError):  # it expires by itself
                await self._store.release(name, claim.nonce)

    async def _renew(self, claim: Claim) -> None:
        """Renew until the claim is lost: the work goes on then and fails when it commits."""
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS)
            try:
                if not await self._store.renew([(claim.name, claim.nonce)], self._ttl_s):
                    log.warning("claim lost", lease=claim.name)
                    return
            except MishardsError as error:
                log.warning("claim not renewed", lease=claim.name, error=error.message)
