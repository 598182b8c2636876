"""Readers and writers as a proxy meets them, made of closures, and the members they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, File, FileId, FileKind, Member, NodeId, PartitionId, Role, Version
from mishards.wire import messages as m

NOTHING = memoryview(b"")


class FakeMembership:
    """Members that a test names; `set` tells the listeners."""

    def __init__(self, *members: Member) -> None:
        self._members = members
        self._listeners: list[Callable[[], None]] = []
        self.epoch = 1
        self.waited_s: list[float] = []  # how long callers would have waited

    def set(self, *members: Member) -> None:
        self._members = members
        self.epoch += 1
        for listener in self._listeners:
            listener()

    def members(self) -> tuple[Member, ...]:
        return self._members

    def of(self, role: Role, *, draining: bool = False) -> tuple[Member, ...]:
        return tuple(m for m in self._members if role in m.roles and (draining or m.state == "ready"))

    async def wait_for(self, role: Role, wait_s: float) -> bool:
        self.waited_s.append(wait_s)
        return bool(self.of(role, draining=True))

    def on_change(self, callback: Callable[[], None]) -> None:
        self._listeners.append(callback)


class FakePeers:
    """Services by node id."""

    def __init__(self, **services: Any) -> None:
        self.services = services

    def reader(self, member: Member) -> Any:
        return self.services[member.id]

    writer = reader


class FakeTelling:
    """Remembers which reader was told what happened after which version."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Version]] = []

    async def tell(self, reader: Member, collection_id: CollectionId, known: Version, wait_s: float) -> None:
        self.told.append((reader.id, known))


class FakeReader:
    """Answers every part as covering its files; `behave` may do something else first. Never more news when polled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[int, ...]] = []
        self.behave: Callable[[tuple[int, ...]], Awaitable[None]] | None = None

    async def query(self, request: m.QueryPart) -> m.QueryRows:
        self.asked.append(request.files)
        if self.behave is not None:
            await self.behave(request.files)
        return m.QueryRows(NOTHING, len(request.files), 10 * len(request.files), 0)

    def fails(self, *kinds: Kind | None) -> None:
        """With these errors, one a call; None and after the last: it answers."""
        left = list(kinds)

        async def behave(_: tuple[int, ...]) -> None:
            kind = left.pop(0) if left else None
            if kind is not None:
                raise MishardsError(kind, f"{self.name} fails")

        self.behave = behave

    def always(self, kind: Kind) -> None:
        self.fails(*[kind] * 1000)


def member(name: str, *roles: Role, **changes: Any) -> Member:
    return Member(id=NodeId(name), roles=roles or ("reader",), address=f"tcp://{name}:1", **changes)


def segment(number: int, added: int = 1, removed: int = 0, shard: int = 0) -> File:
    return a_file(number, FileKind.SEGMENT, added, removed, shard)


def fresh(number: int, added: int = 1, removed: int = 0, shard: int = 0) -> File:
    return a_file(number, FileKind.ROWS, added, removed, shard)


def a_file(number: int, kind: FileKind, added: int, removed: int, shard: int) -> File:
    return File(
        id=FileId(number),
        segment_id=FileId(number),
        collection_id=CollectionId(1),
        shard=shard,
        kind=kind,
        rows=10,
        bytes=10,
        added=Version(added),
        removed=Version(removed),
        partition_id=PartitionId(5),
    )
