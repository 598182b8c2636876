"""A metadata service that knows members only, and can be down."""

import asyncio
from typing import Any

from mishards.errors import Kind, MishardsError
from mishards.model import Member, NodeId


class MembersOnly:
    """The part of `ports.MetadataStore` that discovery uses."""

    def __init__(self) -> None:
        self.records: dict[NodeId, Member] = {}
        self.beats: asyncio.Queue[Member] = asyncio.Queue()
        self.forgotten: asyncio.Queue[NodeId] = asyncio.Queue()
        self.down = False
        self.frozen = False  # can be read, not written

    async def beat(self, member: Member) -> None:
        self._check()
        if self.frozen:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "database is locked")
        self.records[member.id] = member
        self.beats.put_nowait(member)

    async def members(self) -> list[Member]:
        self._check()
        return list(self.records.values())

    async def forget_member(self, node: NodeId) -> None:
        self._check()
        self.records.pop(node, None)
        self.forgotten.put_nowait(node)

    def _check(self) -> None:
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "metadata service is down")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"discovery has no business with {name}")
