"""Discovery by a list that an operator writes: `static://reader-1@10.0.0.1:7000?roles=reader,writer-1@10.0.0.2:7000`.

Entries are `[node id@]host:port[?roles=role+role]`, separated by commas; without an id it is host:port, without roles
all of them. The address is the node's wire door and the id must be the one that the node runs with, because placement
knows nodes by their ids (P16). Nobody leaves the list: which node answers is the health's business. What this process
registers is seen by this process only and replaces the entry of its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from mishards.discovery.context import Context
from mishards.errors import SetupError
from mishards.model import ROLES, Member, NodeId, Role


def open_discovery(url: str, context: Context) -> StaticDiscovery:
    """Discovery by the list in the URL. SetupError names the entry that is wrong."""
    return StaticDiscovery(parse_members(url))


def parse_members(url: str) -> tuple[Member, ...]:
    """The members that a static:// URL lists. SetupError."""
    entries = [entry for entry in url.partition("://")[2].split(",") if entry]
    members = tuple(_parse_member(entry) for entry in entries)
    ids = [member.id for member in members]
    for node in ids:
        if ids.count(node) > 1:
            raise SetupError(f"static discovery lists node {node!r} twice")
    return members


def _parse_member(entry: str) -> Member:
    place, _, query = entry.partition("?")
    name, _, address = place.rpartition("@")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise SetupError(f"static discovery entry {entry!r} is not [id@]host:port[?roles=role+role]")
    return Member(id=NodeId(name or address), roles=_parse_roles(query, entry), address=f"tcp://{address}")


def _parse_roles(query: str, entry: str) -> tuple[Role, ...]:
    if not query:
        return ROLES
    key, _, value = query.partition("=")
    roles = value.split("+")
    if key != "roles" or not set(roles) <= set(ROLES):
        raise SetupError(f"static discovery entry {entry!r}: expected ?roles= with some of {'+'.join(ROLES)}")
    return cast("tuple[Role, ...]", tuple(role for role in ROLES if role in roles))


class StaticDiscovery:
    """`ports.Discovery` without I/O. One loop owns it."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self._members = {member.id: member for member in members}
        self._changed = asyncio.Condition()
        self._closed = False

    async def register(self, member: Member) -> None:
        self._members[member.id] = member
        await self._tell()

    async def deregister(self, node: NodeId) -> None:
        self._members.pop(node, None)
        await self._tell()

    async def watch(self) -> AsyncIterator[tuple[Member, ...]]:
        """Full snapshots: the list at once, then on each registration of this process. Ends when closed."""
        last: tuple[Member, ...] | None = None

        def differs() -> bool:
            return self._closed or self._view() != last

        while True:
            async with self._changed:
                await self._changed.wait_for(differs)
            if self._closed:
                return
            last = self._view()
            yield last

    async def close(self) -> None:
        self._closed = True
        await self._tell()

    def _view(self) -> tuple[Member, ...]:
        return tuple(sorted(self._members.values(), key=lambda member: member.id))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
