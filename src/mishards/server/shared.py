"""What the roles of a process share, opened from the settings: data directory, metadata, storage, discovery."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from mishards import config, plugins
from mishards.clock import Clock
from mishards.config import Settings
from mishards.datadir import check_format, claim_data_dir
from mishards.discovery.context import Context
from mishards.errors import Kind, MishardsError, SetupError, invalid
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import NodeId
from mishards.ports import Discovery, IndexKind, MetadataStore, Router, Storage
from mishards.wire.announce import Announcer
from mishards.wire.membership import Membership
from mishards.wire.ownership import Ownership
from mishards.wire.peers import Peers
from mishards.wire.placement import Placement


@dataclass(frozen=True, slots=True)
class Shared:
    """Given to each role when it starts."""

    node_id: NodeId
    settings: Settings
    clock: Clock
    data: Path
    store: MetadataStore
    storage: Storage
    mirror: Mirror
    ids: IdBlocks
    membership: Membership
    peers: Peers
    announcer: Announcer
    placement: Placement
    ownership: Ownership


def claim_data(settings: Settings, standalone: bool, parts: AsyncExitStack) -> Path:
    """A standalone server has its data directory alone; nodes of a cluster on one machine may share one."""
    data = config.data_dir(settings)
    if standalone:
        parts.enter_context(claim_data_dir(data, "standalone server"))
    else:
        data.mkdir(parents=True, exist_ok=True)
        check_format(data)
    return data


def node_identity(settings: Settings, standalone: bool, data: Path, clock: Clock) -> NodeId:
    """Placement hashes node ids, so a standalone server keeps its own across restarts."""
    if settings.node_id:
        return NodeId(settings.node_id)
    if not standalone:
        roles = config.roles(settings)
        return NodeId(f"{roles[0] if len(roles) == 1 else 'node'}-{clock.token()[:8]}")
    file = data / "NODE"
    if not file.exists():
        file.write_text(f"node-{clock.token()[:8]}\n")
    return NodeId(file.read_text().strip())


async def open_store(settings: Settings, clock: Clock) -> MetadataStore:
    """The metadata service, migrated. SetupError."""
    url = config.metadata_url(settings)
    store: MetadataStore = plugins.load("metadata", plugins.scheme(url))(url, clock)
    try:
        await store.open()
    except MishardsError as error:
        raise SetupError(f"cannot start: {error.message}") from error
    return store


async def open_storage(settings: Settings) -> Storage:
    """Shared storage, asked once for what it cannot have, so that a wrong bucket or key is told now. SetupError."""
    url = config.storage_url(settings)
    storage: Storage = plugins.load("storage", plugins.scheme(url))(url)
    try:
        await storage.get("probe")
    except MishardsError as error:
        if error.kind is not Kind.GONE:
            raise SetupError(f"storage {config.masked(url)} cannot be used: {error.message}") from error
    return storage


def open_discovery(settings: Settings, store: MetadataStore, clock: Clock) -> Discovery:
    url = config.discovery_url(settings)
    context = Context(store, clock, settings.beat_s, settings.poll_s, settings.member_timeout_s)
    discovery: Discovery = plugins.load("discovery", plugins.scheme(url))(url, context)
    return discovery


def open_router(settings: Settings) -> Router:
    router: Router = plugins.load("router", settings.router)
    return router


def index_kind(name: str) -> IndexKind:
    """The index type's plug-in. PARAMETER_INVALID names the known ones."""
    try:
        kind: IndexKind = plugins.load("index", name)
    except plugins.UnknownPluginError:
        known = ", ".join(plugins.names("index"))
        raise invalid(f"invalid index type: {name}, expected one of: {known}") from None
    return kind
