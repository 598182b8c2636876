"""One process: its roles, the doors of those roles, and the order in which they start and stop.

`Server.start` reads from top to bottom; each part registers how it is stopped, and stopping runs in reverse, after
draining: first nobody new is let in, then the others are told, then what is in flight ends. Also `start`, a server in
a background thread for notebooks and tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import structlog
from msgspec.structs import replace

from mishards import __version__, config, plugins
from mishards.clock import Clock, SystemClock
from mishards.config import Settings
from mishards.datadir import check_format, claim_data_dir
from mishards.discovery.context import Context
from mishards.errors import Kind, MishardsError, SetupError, invalid
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import ROLES, Member, NodeId
from mishards.ports import Discovery, IndexKind, MetadataStore, Router, Storage
from mishards.proxy.node import ProxyNode
from mishards.reader.node import ReaderNode
from mishards.telemetry.logging import set_up
from mishards.wire.announce import Announcer
from mishards.wire.membership import Membership
from mishards.wire.messages import NodeStatus, Nothing, Notice
from mishards.wire.peers import Peers
from mishards.wire.placement import Placement
from mishards.wire.serving import WireServer

log = structlog.get_logger(__name__)

LOOK_S = 0.1  # while draining
DOOR_GRACE_S = 1.0  # what the doors give requests in progress, of the five seconds that a stop may take
IDS_BLOCK = 10_000


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
        self._services: dict[str, Any] = {}
        self._doors: list[Any] = []
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
        self._started_s = self._clock.monotonic_s()
        async with self._parts as parts:
            data = self._claim_data(parts)
            self._node_identity(data)

            # shared parts: metadata, storage, who else is there
            store = await self._open_store(parts)
            storage = await self._open_storage()
            self._mirror = Mirror(store, self._clock, self.settings.poll_s)
            await self._mirror.start()
            parts.push_async_callback(self._mirror.stop)
            discovery = self._open_discovery(store)
            parts.push_async_callback(discovery.close)

            # the wire: what other processes ask of this one, before anyone is told that it exists
            wire = self._wire = WireServer(self._services, self._clock)
            self._services["node"] = self
            address = await wire.start(self.settings.host, self.settings.wire_port)
            parts.push_async_callback(wire.stop, DOOR_GRACE_S)
            self._self = self._member(address)
            await discovery.register(self._self)
            parts.push_async_callback(discovery.deregister, self.node_id)
            membership = Membership(discovery)
            await membership.start()
            parts.push_async_callback(membership.stop)
            peers = Peers(self._clock, self._services, self.node_id)
            membership.on_change(lambda: peers.keep(membership.members()))
            parts.callback(peers.close)
            announcer = Announcer(self.node_id, membership, peers)
            parts.push_async_callback(announcer.stop)

            # the roles; those that serve others first
            router: Router = _open_router(self.settings.router)
            placement = Placement(router)
            ids = IdBlocks(store, IDS_BLOCK)
            if "reader" in self.roles:
                await self._start_reader(parts, data, storage, membership, placement)
            if "writer" in self.roles:
                await self._start_writer(parts, data, store, storage, ids, announcer)
            if "builder" in self.roles:
                await self._start_builder(parts, data, store, storage, ids, announcer)
            if "proxy" in self.roles:
                await self._start_proxy(parts, membership, peers, router, placement, ids)

            # the doors, and the news
            await self._start_http(parts)
            self._discovery, self._membership = discovery, membership
            self._self = replace(self._self, http=f"http://{self.settings.host}:{self.http_port}")
            await discovery.register(self._self)
            self._parts = parts.pop_all()

    async def stop(self) -> None:
        """Drain, then stop everything in reverse order."""
        self._draining = True
        with contextlib.suppress(MishardsError):
            await self._discovery.register(replace(self._self, state="draining"))
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
        )

    # ---------------------------------------------------------------------------------------------------- the parts

    def _claim_data(self, parts: AsyncExitStack) -> Path:
        """A standalone server has its data directory alone; nodes of a cluster on one machine may share one."""
        data = config.data_dir(self.settings)
        if self.standalone:
            parts.enter_context(claim_data_dir(data, "standalone server"))
        else:
            data.mkdir(parents=True, exist_ok=True)
            check_format(data)
        return data

    def _node_identity(self, data: Path) -> None:
        """Placement hashes node ids, so a standalone server keeps its own across restarts."""
        if self.settings.node_id or not self.standalone:
            role = self.roles[0] if len(self.roles) == 1 else "node"
            self.node_id = NodeId(self.settings.node_id or f"{role}-{self._clock.token()[:8]}")
            return
        file = data / "NODE"
        if not file.exists():
            file.write_text(f"node-{self._clock.token()[:8]}\n")
        self.node_id = NodeId(file.read_text().strip())

    async def _open_store(self, parts: AsyncExitStack) -> MetadataStore:
        url = config.metadata_url(self.settings)
        store: MetadataStore = plugins.load("metadata", plugins.scheme(url))(url, self._clock)
        try:
            await store.open()
        except MishardsError as error:
            raise SetupError(f"metadata service {config.masked(url)} cannot be used: {_line(error.message)}") from error
        parts.push_async_callback(store.close)
        return store

    async def _open_storage(self) -> Storage:
        """Asked once for what it cannot have, so that a wrong bucket or key is told at the start."""
        url = config.storage_url(self.settings)
        storage: Storage = plugins.load("storage", plugins.scheme(url))(url)
        try:
            await storage.get("probe")
        except MishardsError as error:
            if error.kind is not Kind.GONE:
                raise SetupError(f"storage {config.masked(url)} cannot be used: {_line(error.message)}") from error
        return storage

    def _open_discovery(self, store: MetadataStore) -> Discovery:
        settings = self.settings
        url = config.discovery_url(settings)
        context = Context(store, self._clock, settings.beat_s, settings.poll_s, settings.member_timeout_s)
        discovery: Discovery = plugins.load("discovery", plugins.scheme(url))(url, context)
        return discovery

    async def _start_reader(
        self, parts: AsyncExitStack, data: Path, storage: Storage, membership: Membership, placement: Placement
    ) -> None:
        reader = ReaderNode(
            self.node_id,
            storage,
            self._mirror,
            membership,
            placement,
            index_kind,
            self.settings.reader,
            self._clock,
            data / "cache" / self.node_id,
            self.settings.reader.threads or _cores(),
        )
        await reader.start()
        parts.push_async_callback(reader.stop)
        self._serve("reader", reader, parts)

    async def _start_writer(
        self,
        parts: AsyncExitStack,
        data: Path,
        store: MetadataStore,
        storage: Storage,
        ids: IdBlocks,
        announcer: Announcer,
    ) -> None:
        from mishards.writer.node import WriterNode  # a reader does without

        writer = WriterNode(
            self.node_id,
            store,
            storage,
            self._mirror,
            ids,
            self.settings.writer,
            self._clock,
            announcer.announce,
            data / "scratch" / self.node_id,
        )
        await writer.start()
        parts.push_async_callback(writer.stop)
        self._serve("writer", writer, parts)

    async def _start_builder(
        self,
        parts: AsyncExitStack,
        data: Path,
        store: MetadataStore,
        storage: Storage,
        ids: IdBlocks,
        announcer: Announcer,
    ) -> None:
        from mishards.builder.node import BuilderNode  # a reader does without

        builder = BuilderNode(
            self.node_id,
            store,
            storage,
            self._mirror,
            ids,
            self.settings.builder,
            self._clock,
            data / "work" / self.node_id,
            index_kind,
            announcer.announce,
        )
        await builder.start()
        parts.push_async_callback(builder.stop)

    async def _start_proxy(
        self,
        parts: AsyncExitStack,
        membership: Membership,
        peers: Peers,
        router: Router,
        placement: Placement,
        ids: IdBlocks,
    ) -> None:
        from mishards.api.milvus.door import MilvusDoor  # a second and 100 MiB that only a proxy needs

        proxy = ProxyNode(
            self._mirror, membership, peers, router, placement, ids, index_kind, self.settings.proxy, self._clock
        )
        await proxy.start()
        parts.push_async_callback(proxy.stop)
        self._proxy = proxy
        door = MilvusDoor(proxy, self.settings.proxy, self._clock, __version__, share_port=not self.standalone)
        self.milvus_port = await door.start(self.settings.host, self.settings.port)
        parts.push_async_callback(door.stop, DOOR_GRACE_S)
        self._doors.append(door)

    async def _start_http(self, parts: AsyncExitStack) -> None:
        from mishards.api.rest.door import HttpDoor
        from mishards.api.rest.health import health_app

        door = HttpDoor(health_app(self._not_ready))
        self.http_port = await door.start(self.settings.host, self.settings.http_port)
        parts.push_async_callback(door.stop)

    def _serve(self, name: str, service: object, parts: AsyncExitStack) -> None:
        """Let others ask it; before it stops they are told that it is not here (UNAVAILABLE), and go elsewhere."""
        self._services[name] = service
        parts.callback(self._services.pop, name)

    # ------------------------------------------------------------------------------------------------------ state

    def _member(self, address: str) -> Member:
        return Member(
            id=self.node_id,
            roles=self.roles,
            address=address,
            incarnation=self._clock.token(),
            pid=os.getpid(),
            started_ms=self._clock.unix_ms(),
        )

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


def index_kind(name: str) -> IndexKind:
    """The index type's plug-in. PARAMETER_INVALID names the known ones."""
    try:
        kind: IndexKind = plugins.load("index", name)
    except plugins.UnknownPluginError:
        known = ", ".join(plugins.names("index"))
        raise invalid(f"invalid index type: {name}, expected one of: {known}") from None
    return kind


def _open_router(name: str) -> Router:
    router: Router = plugins.load("router", name)
    return router


def _line(message: str) -> str:
    """Its first line."""
    return message.partition("\n")[0]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _resident_bytes() -> int:
    """This process' resident memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class _NoPandas(MetaPathFinder):
    """Makes `import pandas` fail."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("no pandas here", name=fullname)


def _keep_pandas_out() -> None:
    """Arrow imports pandas, where it is installed, with the first NumPy array it is given: half a second and 35 MiB
    that only pymilvus needs. It looks once (each way), and then there is none."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array(np.zeros(1)).to_numpy()
    finally:
        sys.meta_path.remove(finder)


async def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` gets the ready line. SetupError when the server cannot start."""
    if "proxy" not in config.roles(settings):
        _keep_pandas_out()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings, SystemClock())
    await server.start()
    ready(server.ready_line())
    await stop.wait()
    await server.stop()


class Running:
    """A standalone server in a background thread; a context manager with `.uri`."""

    def __init__(self, settings: Settings) -> None:
        if not structlog.is_configured():  # the host program's own set-up stays
            set_up(settings.log_level)
        self.uri = ""
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mishards", daemon=True)
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Drain and stop; idempotent."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._settings, SystemClock())
        await server.start()
        self.uri = server.uri
        self._up.set()
        await self._stop.wait()
        await server.stop()


def start(data_dir: str | Path = "./mishards-data", **settings: Any) -> Running:
    """A standalone server over `data_dir` on a free port, for notebooks and tests:

    >>> with mishards.start("./data") as server:
    ...     client = MilvusClient(server.uri)
    """
    values = {"data": str(data_dir), "port": 0, "http_port": 0, "log_level": "warning", **settings}
    return Running(config.load(None, {}, values).settings)
