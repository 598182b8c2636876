"""The services of every member: called directly when it is this very process, else over one channel each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import Member, NodeId
from mishards.wire.channel import Channel
from mishards.wire.remote import RemoteNode, RemoteReader, RemoteWriter
from mishards.wire.services import NodeService, ReaderService, WriterService


class _Remote(NamedTuple):
    channel: Channel
    reader: RemoteReader
    writer: RemoteWriter
    node: RemoteNode


class Peers:
    """`local` holds this process' own services by name ("reader", "writer", "node"); it may be filled later."""

    def __init__(self, clock: Clock, local: Mapping[str, Any], self_node_id: NodeId) -> None:
        self._clock = clock
        self._local = local
        self._self_node_id = self_node_id
        self._remotes: dict[str, _Remote] = {}  # by address

    def reader(self, member: Member) -> ReaderService:
        service: ReaderService = self._own("reader") if self._is_self(member) else self._remote(member).reader
        return service

    def writer(self, member: Member) -> WriterService:
        service: WriterService = self._own("writer") if self._is_self(member) else self._remote(member).writer
        return service

    def node(self, member: Member) -> NodeService:
        service: NodeService = self._own("node") if self._is_self(member) else self._remote(member).node
        return service

    def keep(self, members: Iterable[Member]) -> None:
        """Close the channels to addresses that no longer belong to a member; their calls fail with PEER_LOST."""
        addresses = {member.address for member in members}
        for address in self._remotes.keys() - addresses:
            self._remotes.pop(address).channel.close()

    def close(self) -> None:
        """Close every channel."""
        self.keep(())

    def _is_self(self, member: Member) -> bool:
        return member.id == self._self_node_id

    def _own(self, name: str) -> Any:
        if name not in self._local:
            raise MishardsError(Kind.UNAVAILABLE, f"this node is no {name}")
        return self._local[name]

    def _remote(self, member: Member) -> _Remote:
        remote = self._remotes.get(member.address)
        if remote is None:
            channel = Channel(member.address, self._clock)
            remote = _Remote(channel, RemoteReader(channel), RemoteWriter(channel), RemoteNode(channel))
            self._remotes[member.address] = remote
        return remote
