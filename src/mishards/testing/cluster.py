"""A cluster in one process: servers of different roles on one event loop, over SQLite and a folder, sockets between.

What a test does to it happens as it does to processes: a node that is killed says nothing to anybody (its leases and
its place among the members run out), one that is stopped drains, one that joins is placed on. Only the proxies' own
methods are called without the Milvus door.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mishards.clock import SystemClock
from mishards.config import BuilderSettings, Settings, WriterSettings
from mishards.errors import Kind, MishardsError
from mishards.model import Role
from mishards.ports import MetadataStore
from mishards.proxy.node import ProxyNode
from mishards.server import Server

WAIT_S_MAX = 20.0

# Everything happens within moments: beats and polls, flushes and merges, the end of a dead writer's leases.
LIVELY = Settings(
    port=0,
    http_port=0,
    beat_s=0.1,
    poll_s=0.1,
    member_timeout_s=1.0,
    drain_s=1.0,
    writer=WriterSettings(lease_s=1.0, seal_files=4, seal_age_s=0.5),
    builder=BuilderSettings(interval_s=0.1, merge_files=2, tombstones_max=50, threads=1, processes=0, rest_values=1),
)


class Node(Server):
    """A server that can be killed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, SystemClock())
        self._store: _Severable | None = None

    @property
    def proxy(self) -> ProxyNode:
        assert self._proxy is not None, f"{self.node_id} is no proxy"
        return self._proxy

    async def kill(self) -> None:
        """From now on nobody hears of this node. `end` it to free its threads and files."""
        assert self._store is not None
        await self._wire.stop(0)  # first, or it would answer that it is dead
        self._store.severed = True

    async def end(self) -> None:
        """Stop every part without draining."""
        await self._parts.aclose()

    async def _open_store(self) -> MetadataStore:
        self._store = _Severable(await super()._open_store())
        store: Any = self._store
        return store  # type: ignore[no-any-return]


class Cluster:
    """The nodes that live. Made by `cluster`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.nodes: list[Node] = []
        self._settings = replace(settings, data=str(folder))
        self._ending: list[asyncio.Task[None]] = []
        self._joined = 0

    @property
    def proxy(self) -> ProxyNode:
        """The first proxy."""
        return self.of("proxy")[0].proxy

    def of(self, role: Role) -> list[Node]:
        return [node for node in self.nodes if role in node.roles]

    async def join(self, roles: str) -> Node:
        """A new node, ready."""
        self._joined += 1
        name = f"{roles.replace(',', '-')}-{self._joined}"
        node = Node(replace(self._settings, roles=roles, node_id=name))
        await node.start()
        self.nodes.append(node)
        return node

    async def kill(self, node: Node) -> None:
        """End a node as `kill -9` does."""
        self.nodes.remove(node)
        await node.kill()
        self._ending.append(asyncio.create_task(node.end(), name=f"the end of {node.node_id}"))

    async def stop(self, node: Node) -> None:
        """Stop a node as SIGTERM does."""
        self.nodes.remove(node)
        await node.stop()

    async def settled(self) -> None:
        """Wait until every proxy sees exactly the nodes that live."""
        names = {node.node_id for node in self.nodes}
        await until(lambda: all({m.id for m in node.proxy.members()} == names for node in self.of("proxy")))

    async def close(self) -> None:
        """End every node, proxies first. Nothing drains: nobody is left to take over."""
        for node in sorted(self.nodes, key=lambda node: "proxy" not in node.roles):
            await node.end()
        self.nodes.clear()
        await asyncio.gather(*self._ending)


@asynccontextmanager
async def cluster(
    folder: Path,
    *,
    proxies: int = 1,
    readers: int = 1,
    writers: int = 1,
    builders: int = 1,
    settings: Settings = LIVELY,
) -> AsyncIterator[Cluster]:
    """A cluster with so many nodes of each role, each seen by every proxy."""
    made = Cluster(folder, settings)
    try:
        for roles, count in (("writer", writers), ("reader", readers), ("builder", builders), ("proxy", proxies)):
            for _ in range(count):
                await made.join(roles)
        await made.settled()
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool], wait_s: float = WAIT_S_MAX) -> None:
    """Wait for what other tasks bring about. TimeoutError."""
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.01)


class _Severable:
    """A metadata store that this node can no longer reach once it is severed."""

    def __init__(self, inner: MetadataStore) -> None:
        self._inner = inner
        self.severed = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            if self.severed and name != "close":
                raise MishardsError(Kind.METADATA_UNAVAILABLE, "this node is dead")
            return await method(*arguments, **named)

        return call
