"""Starting the roles. Each one is imported only where it runs: a reader does without clients' libraries."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from mishards.server.shared import Shared, index_kind

if TYPE_CHECKING:
    from mishards.builder.node import BuilderNode
    from mishards.proxy.node import ProxyNode
    from mishards.reader.node import ReaderNode
    from mishards.writer.node import WriterNode


async def start_reader(shared: Shared, parts: AsyncExitStack) -> ReaderNode:
    from mishards.reader.node import ReaderNode

    reader = ReaderNode(
        shared.node_id,
        shared.storage,
        shared.mirror,
        shared.membership,
        shared.placement,
        index_kind,
        shared.settings.reader,
        shared.clock,
        shared.data / "cache" / shared.node_id,
        shared.settings.reader.threads or cores(),
    )
    await reader.start()
    parts.push_async_callback(reader.stop)
    return reader


async def start_writer(shared: Shared, parts: AsyncExitStack) -> WriterNode:
    from mishards.writer.node import WriterNode
    from mishards.writer.others import Fellows

    writer = WriterNode(
        shared.node_id,
        shared.store,
        shared.storage,
        shared.mirror,
        shared.ids,
        shared.settings.writer,
        shared.clock,
        shared.announcer.announce,
        shared.data / "scratch" / shared.node_id,
        Fellows(shared.node_id, shared.membership, shared.peers, shared.ownership, shared.clock),
    )
    await writer.start()
    parts.push_async_callback(writer.stop)
    return writer


async def start_builder(shared: Shared, parts: AsyncExitStack) -> BuilderNode:
    from mishards.builder.floors import MemberFloors
    from mishards.builder.node import BuilderNode

    builder = BuilderNode(
        shared.node_id,
        shared.store,
        shared.storage,
        shared.mirror,
        shared.ids,
        shared.settings.builder,
        shared.clock,
        shared.data / "work" / shared.node_id,
        index_kind,
        shared.announcer.announce,
        MemberFloors(shared.membership, shared.peers),
    )
    await builder.start()
    parts.push_async_callback(builder.stop)
    return builder


async def start_proxy(shared: Shared, parts: AsyncExitStack) -> ProxyNode:
    from mishards.proxy.node import ProxyNode

    proxy = ProxyNode(
        shared.mirror,
        shared.store,
        shared.membership,
        shared.peers,
        shared.ownership,
        shared.placement,
        shared.ids,
        index_kind,
        shared.settings.proxy,
        shared.clock,
    )
    await proxy.start()
    parts.push_async_callback(proxy.stop)
    return proxy


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
