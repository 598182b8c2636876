"""The interfaces over which roles meet. In one process they are called directly, between processes through frames.

`METHODS` is the one table from which both ends of the wire are built: method number -> name, request and reply type.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mishards.wire import messages as m
from mishards.wire.definitions import DefineReply, DefineRequest


class ReaderService(Protocol):
    """Errors: NOT_CAUGHT_UP, GONE, NOT_LOADED (P8), DEADLINE, PARAMETER_INVALID and what a filter can raise."""

    async def search(self, request: m.SearchPart) -> m.SearchHits: ...

    async def query(self, request: m.QueryPart) -> m.QueryRows: ...

    async def fetch(self, request: m.FetchPart) -> m.FetchRows: ...

    async def ready(self, request: m.ReadyRequest) -> m.ReadyState: ...


class WriterService(Protocol):
    """Errors: NOT_OWNER (detail: the owner's node id), RATE_LIMIT, SCHEMA_MISMATCH, METADATA_UNAVAILABLE, ..."""

    async def write(self, request: m.WriteRequest) -> m.WriteReply: ...

    async def define(self, request: DefineRequest) -> DefineReply: ...

    async def flush(self, request: m.FlushRequest) -> m.FlushReply: ...


class NodeService(Protocol):
    """What every process answers."""

    async def notify(self, request: m.Notice) -> m.Nothing: ...

    async def status(self, request: m.Nothing) -> m.NodeStatus: ...


class Method(NamedTuple):
    number: int
    service: str  # reader, writer, node
    name: str
    request: type
    reply: type
    at_once: str = ""  # the method of a service that may have the reply without waiting; else it gives None


METHODS = (
    Method(1, "reader", "search", m.SearchPart, m.SearchHits, "search_at_once"),
    Method(2, "reader", "query", m.QueryPart, m.QueryRows),
    Method(3, "reader", "fetch", m.FetchPart, m.FetchRows),
    Method(4, "reader", "ready", m.ReadyRequest, m.ReadyState),
    Method(10, "writer", "write", m.WriteRequest, m.WriteReply),
    Method(11, "writer", "define", DefineRequest, DefineReply),
    Method(12, "writer", "flush", m.FlushRequest, m.FlushReply),
    Method(20, "node", "notify", m.Notice, m.Nothing),
    Method(21, "node", "status", m.Nothing, m.NodeStatus),
)
