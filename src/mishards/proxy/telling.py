"""What a reader missed while the metadata service cannot tell it: this proxy pushes what it knows (P9, P14).

A push reaches the proxies and not a reader that was paused or cut off just then; usually the reader asks the metadata
service. While that is down a search planned here would fail at every such reader, though all it needs is known here.
"""

from __future__ import annotations

import asyncio
import contextlib

from mishards.errors import MishardsError
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId, Member, Version
from mishards.wire.messages import Notice
from mishards.wire.peers import Peers


class Telling:
    """Pushes to one reader that says how far it is."""

    def __init__(self, mirror: Mirror, peers: Peers) -> None:
        self._mirror = mirror
        self._peers = peers

    async def tell(self, reader: Member, collection_id: CollectionId, known: Version, wait_s: float) -> None:
        """Push what happened after the version `known`, if all of that is known here. A hint as every push: the reader
        takes it only if its chain goes on so."""
        delta = self._mirror.since(collection_id, known)
        if delta is None:
            return
        with contextlib.suppress(MishardsError, TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._peers.node(reader).notify(Notice(delta))
