"""What the live nodes still need: the oldest layout of each collection that any of them may ask files of (P12, I4).

A node's floors only grow, so an answer that is late, or used late, lets too little be deleted, never too much. A node
that joins later begins at the newest layout and is no concern.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, Member, Version
from mishards.wire.membership import Membership
from mishards.wire.messages import Nothing
from mishards.wire.peers import Peers

ANSWER_S_MAX = 5.0

Floors = Callable[[], Awaitable[Mapping[CollectionId, Version]]]


class MemberFloors:
    """Asks every member, draining ones too."""

    def __init__(self, membership: Membership, peers: Peers) -> None:
        self._membership = membership
        self._peers = peers

    async def __call__(self) -> dict[CollectionId, Version]:
        """By collection the oldest layout in use; nobody uses a collection that is left out. UNAVAILABLE names a
        member that does not answer: until it does, or is no member any more, nobody knows what it needs."""
        answers = await asyncio.gather(*(self._ask(member) for member in self._membership.members()))
        floors: dict[CollectionId, Version] = {}
        for answer in answers:
            for id, version in answer.items():
                collection_id = CollectionId(id)
                floors[collection_id] = Version(min(version, floors.get(collection_id, version)))
        return floors

    async def _ask(self, member: Member) -> Mapping[int, int]:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return (await self._peers.node(member).status(Nothing())).floors
        except (MishardsError, TimeoutError) as error:
            raise MishardsError(
                Kind.UNAVAILABLE, f"node {member.id} does not tell which layouts it uses: {error!r}"
            ) from error
