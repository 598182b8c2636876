"""Services of another process: the interfaces of `services.py` spoken over a channel."""

from __future__ import annotations

from mishards.wire import messages as m
from mishards.wire.channel import Channel
from mishards.wire.definitions import DefineReply, DefineRequest

DEFINE_S_MAX = 60.0
NODE_S_MAX = 5.0  # notices and status
POLL_EXTRA_S = 5.0  # a long poll that is that late is lost


class RemoteReader:
    """A reader of another process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def search(self, request: m.SearchPart) -> m.SearchHits:
        reply: m.SearchHits = await self._channel.call("reader.search", request, request.deadline_s)
        return reply

    async def query(self, request: m.QueryPart) -> m.QueryRows:
        reply: m.QueryRows = await self._channel.call("reader.query", request, request.deadline_s)
        return reply

    async def fetch(self, request: m.FetchPart) -> m.FetchRows:
        reply: m.FetchRows = await self._channel.call("reader.fetch", request, request.deadline_s)
        return reply

    async def ready(self, request: m.ReadyRequest) -> m.ReadyState:
        reply: m.ReadyState = await self._channel.call("reader.ready", request, request.wait_s + POLL_EXTRA_S)
        return reply


class RemoteWriter:
    """A writer of another process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def write(self, request: m.WriteRequest) -> m.WriteReply:
        reply: m.WriteReply = await self._channel.call("writer.write", request, request.deadline_s)
        return reply

    async def define(self, request: DefineRequest) -> DefineReply:
        reply: DefineReply = await self._channel.call("writer.define", request, DEFINE_S_MAX)
        return reply

    async def flush(self, request: m.FlushRequest) -> m.FlushReply:
        reply: m.FlushReply = await self._channel.call("writer.flush", request, request.deadline_s)
        return reply


class RemoteNode:
    """What every other process answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def notify(self, request: m.Notice) -> m.Nothing:
        reply: m.Nothing = await self._channel.call("node.notify", request, NODE_S_MAX)
        return reply

    async def status(self, request: m.Nothing) -> m.NodeStatus:
        reply: m.NodeStatus = await self._channel.call("node.status", request, NODE_S_MAX)
        return reply
