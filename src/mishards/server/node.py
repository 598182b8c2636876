"""The order in which one process starts and stops, readable from top to bottom.

Each part registers how it is stopped, and stopping runs in reverse, after draining: first the others are told and
nobody new is let in, then what is in flight ends, then the parts go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace

from mishards import __version__, config
from mishards.clock import Clock
from mishards.config import Settings
from mishards.errors import MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import ROLES, Member, NodeId
from mishards.ports import MetadataStore, Storage
from mishards.server.metrics import Incidents, process_samples
from mishards.server.roles import start_builder, start_proxy, start_reader, start_writer
from mishards.server.shared import (
    Shared,
    claim_data,
    node_identity,
    open_discovery,
    open_router,
    open_storage,
    open_store,
)
from mishards.telemetry.metrics import Metrics, Sample
from mishards.wire.announce import Announcer
from mishards.wire.membership import Membership
from mishards.wire.messages import NodeStatus, Nothing, Notice
from mishards.wire.ownership import Ownership
from mishards.wire.peers import Peers
from mishards.wire.placement import Placement
from mishards.wire.serving import WireServer

if TYPE_CHECKING:
    from mishards.proxy.node import ProxyNode
    from mishards.reader.node import ReaderNode

log = structlog.get_logger(__name__)

LOOK_S = 0.1  # while draining
DOOR_GRACE_S = 1.0  # what the doors give requests in progress, of the five seconds that a stop may take


class Server:
    """A process of the cluster. `start`, then `stop`, once each."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.roles = config.roles(settings)
        self.node_id = NodeId("")
        self.milvus_port = 0
        self.http_port = 0
        self._clock = clock
        self._parts = AsyncExitStack()
        self._services: dict[str, Any] = {}  # what others may ask of this process, by name
        self._doors: list[Any] = []
        self._metrics = Metrics()
        self._incidents = Incidents()
        self._proxy: ProxyNode | None = None
        self._draining = False
        self._started_s = 0.0

    @property
    def standalone(self) -> bool:
        return set(self.roles) == set(ROLES)

    @property
    def uri(self) -> str:
        return f"http://{self.settings.host}:{self.milvus_port}"

    async def start(self) -> None:
        """Everything up, in this order. SetupError leaves nothing running."""
        settings, clock = self.settings, self._clock
        self._started_s = clock.monotonic_s()
        async with self._parts as parts:
            # shared parts: metadata, storage, who else is there
            data = claim_data(settings, self.standalone, parts)
            self.node_id = node_identity(settings, self.standalone, data, clock)
            store = await self._open_store()
            parts.push_async_callback(store.close)
            storage = await self._open_storage()
            self._mirror = Mirror(store, clock, settings.poll_s)
            self._mirror.on_fork(self._incidents.forked)
            await self._mirror.start()
            parts.push_async_callback(self._mirror.stop)
            self._discovery = open_discovery(settings, store, clock)
            parts.push_async_callback(self._discovery.close)

            # the wire: what other processes ask of this one, before anyone is told that it exists
            self._wire = WireServer(self._services, clock)
            self._services["node"] = self
            address = await self._wire.start(settings.host, settings.wire_port)
            parts.push_async_callback(self._wire.stop, DOOR_GRACE_S)
            self._member = self._new_member(address)
            await self._discovery.register(self._member)
            parts.push_async_callback(self._discovery.deregister, self.node_id)
            self._membership = membership = Membership(self._discovery)
            await membership.start()
            parts.push_async_callback(membership.stop)
            self._metrics.add(self._tell)
            peers = Peers(clock, self._services, self.node_id)
            membership.on_change(lambda: peers.keep(membership.members()))
            parts.callback(peers.close)
            announcer = Announcer(self.node_id, membership, peers)
            parts.push_async_callback(announcer.stop)

            # the roles; those that serve others first
            router = open_router(settings)
            shared = Shared(
                node_id=self.node_id,
                settings=settings,
                clock=clock,
                data=data,
                store=store,
                storage=storage,
                mirror=self._mirror,
                ids=IdBlocks(store),
                membership=membership,
                peers=peers,
                announcer=announcer,
                placement=Placement(router),
                ownership=Ownership(router),
            )
            self._mirror.on_fork(shared.placement.forget)
            if "reader" in self.roles:
                reader = await start_reader(shared, parts)
                self._offer("reader", reader, parts)
                self._metrics.add(reader.metrics)
            if "writer" in self.roles:
                writer = await start_writer(shared, parts)
                self._offer("writer", writer, parts)
                self._metrics.add(writer.metrics)
            if "builder" in self.roles:
                self._metrics.add((await start_builder(shared, parts)).metrics)
            if "proxy" in self.roles:
                self._proxy = await start_proxy(shared, parts)
                self._metrics.add(self._proxy.metrics)
                await self._open_milvus_door(self._proxy, parts)

            # health and metrics, and the news
            await self._open_http_door(parts)
            self._member = replace(self._member, http=f"http://{settings.host}:{self.http_port}")
            await self._discovery.register(self._member)
            self._parts = parts.pop_all()

    async def stop(self) -> None:
        """Drain, then stop everything in reverse order."""
        self._draining = True
        with contextlib.suppress(MishardsError):
            await self._discovery.register(replace(self._member, state="draining"))
        async with self._parts:
            await asyncio.gather(*(door.stop(DOOR_GRACE_S) for door in self._doors))
            await self._others_take_over()
        log.info("stopped", node=self.node_id)

    def ready_line(self) -> str:
        """What is printed when everything is up."""
        words = [f"roles={','.join(self.roles)}"]
        if self.milvus_port:
            words.append(f"milvus={self.uri}")
        words += [f"http=http://{self.settings.host}:{self.http_port}", f"node={self.node_id}"]
        return f"mishards ready: {' '.join(words)}"

    # ----------------------------------------------------------------------------------------------- NodeService

    async def notify(self, request: Notice) -> Nothing:
        if request.delta is None or not self._mirror.apply(request.delta):
            self._incidents.push_gaps += request.delta is not None
            self._mirror.hint()
        return Nothing()

    async def status(self, request: Nothing) -> NodeStatus:
        reader: ReaderNode | None = self._services.get("reader")
        return NodeStatus(
            node=self.node_id,
            roles=self.roles,
            state="draining" if self._draining else "ready",
            uptime_s=self._clock.monotonic_s() - self._started_s,
            memory_bytes=_resident_bytes(),
            in_flight=0 if reader is None else reader.in_flight,
            collections={manifest.collection.id: manifest.version for manifest in self._mirror.manifests()},
            held={} if reader is None else reader.held(),
            floors=self._floors(),
        )

    def _floors(self) -> dict[int, int]:
        """Plans use the layouts that the mirror still knows, and those in use may be older."""
        floors: dict[int, int] = {manifest.collection.id: manifest.oldest for manifest in self._mirror.manifests()}
        if self._proxy is not None:
            for collection_id, layout in self._proxy.layouts_in_use().items():
                floors[collection_id] = min(layout, floors.get(collection_id, layout))
        return floors

    # ---------------------------------------------------------------------------------------------------- the parts

    async def _open_store(self) -> MetadataStore:
        return await open_store(self.settings, self._clock)

    async def _open_storage(self) -> Storage:
        return await open_storage(self.settings)

    def _offer(self, name: str, service: object, parts: AsyncExitStack) -> None:
        """Let others ask it; before it stops they are told that it is not here (UNAVAILABLE), and go elsewhere."""
        self._services[name] = service
        parts.callback(self._services.pop, name)

    async def _open_milvus_door(self, proxy: ProxyNode, parts: AsyncExitStack) -> None:
        from mishards.api.milvus.door import MilvusDoor  # half a second and 60 MiB that only a proxy needs

        door = MilvusDoor(proxy, self.settings.proxy, self._clock, __version__, share_port=not self.standalone)
        self.milvus_port = await door.start(self.settings.host, self.settings.port)
        parts.push_async_callback(door.stop, DOOR_GRACE_S)
        self._doors.append(door)

    async def _open_http_door(self, parts: AsyncExitStack) -> None:
        from mishards.api.rest.door import HttpDoor
        from mishards.api.rest.health import health_app

        door = HttpDoor(health_app(self._not_ready, self._metrics.samples))
        self.http_port = await door.start(self.settings.host, self.settings.http_port)
        parts.push_async_callback(door.stop)

    def _tell(self) -> Iterator[Sample]:
        """What this process has to say of itself whatever its roles."""
        now_s = self._clock.monotonic_s()
        yield from process_samples(self.node_id, self.roles, self._mirror, self._membership, self._started_s, now_s)
        yield from self._incidents.samples()

    def _new_member(self, address: str) -> Member:
        return Member(
            id=self.node_id,
            roles=self.roles,
            address=address,
            incarnation=self._clock.token(),
            pid=os.getpid(),
            started_ms=self._clock.unix_ms(),
        )

    # ------------------------------------------------------------------------------------------------------ state

    def _not_ready(self) -> list[str]:
        """Why no traffic should come here; empty when it may."""
        reasons = [] if self._proxy is None else self._proxy.unhealthy()
        return ["draining", *reasons] if self._draining else reasons

    async def _others_take_over(self) -> None:
        """Serve on for a while, as long as there are readers that stay and can load what this one holds."""
        ends_s = self._clock.monotonic_s() + self.settings.drain_s
        while "reader" in self.roles and self._clock.monotonic_s() < ends_s:
            if all(member.id == self.node_id for member in self._membership.of("reader")):
                return
            await asyncio.sleep(LOOK_S)


def _resident_bytes() -> int:
    """This process' resident memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
