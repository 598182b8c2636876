"""The seams: what the roles need of storage, metadata, discovery, routing and indexes, as Protocols.

A back end implements one of them, is found through `plugins.py`, and must pass the conformance suite in
`mishards.testing`. A method's docstring is its contract. All errors are `MishardsError` with the kind named here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mishards.model import Collection, CollectionId, Commit, Delta, File, FileId, FileKind, Member, NodeId, Version

# ---------------------------------------------------------------------------------------------------------- storage


class Storage(Protocol):
    """Shared storage: immutable objects by path. Errors: STORAGE_UNAVAILABLE (retryable), GONE (no such object)."""

    async def put(self, path: str, data: bytes | memoryview) -> None:
        """Store a whole object durably (synced). A path is written once; the same bytes again are a success."""
        ...

    async def put_file(self, path: str, source: Path) -> None:
        """Store a local file's content, durably, without holding it in memory."""
        ...

    async def get(self, path: str) -> bytes:
        """The whole object."""
        ...

    async def fetch(self, path: str, destination: Path) -> None:
        """Make a private local copy at `destination`, complete or absent. A local back end may hard-link."""
        ...

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete; objects that do not exist are no error."""
        ...

    async def list(self, prefix: str) -> list[str]:
        """All paths below a prefix. Slow; never on the hot path (P1)."""
        ...


# --------------------------------------------------------------------------------------------------------- metadata


class Lease(msgspec.Struct, frozen=True):
    """Ownership of a name ('shard/{collection}/{shard}', 'task/...'). The nonce is the fence (P2)."""

    name: str
    owner: NodeId
    nonce: str
    left_s: float  # by the database's clock, when read


class Head(msgspec.Struct, frozen=True):
    """The cheap summary a mirror polls: which collections exist and how far they are."""

    collection_id: CollectionId
    version: Version
    ddl: int  # grows with each change of the definition


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One commit (P3). `added` files carry no version yet; `leases` are (name, nonce) pairs that must still hold."""

    collection_id: CollectionId
    uuid: str
    kind: Literal["write", "layout"]
    now_ms: int
    leases: tuple[tuple[str, str], ...] = ()
    added: tuple[File, ...] = ()
    removed: tuple[FileId, ...] = ()
    payloads: dict[FileId, bytes] = {}  # of inline files


class MetadataStore(Protocol):
    """The one metadata service. Every method is one transaction. Errors: METADATA_UNAVAILABLE (retryable)."""

    async def open(self) -> None:
        """Connect and migrate to this program's schema; safe when several nodes start at once. SetupError if newer."""
        ...

    async def close(self) -> None: ...

    async def take_ids(self, count: int) -> int:
        """The first of `count` fresh consecutive ids, unique for ever in this cluster, below 2**63."""
        ...

    # definitions
    async def create_collection(self, collection: Collection) -> None:
        """Insert it at version 0 and claim its name. UNEXPECTED when a collection or alias has that name already."""
        ...

    async def replace_collection(self, old: Collection, new: Collection) -> None:
        """Replace the definition and claim/free names and aliases that differ. CONFLICT if the stored `updated_ts` is
        not `old.updated_ts`; COLLECTION_NOT_FOUND if dropped; ALIAS_EXISTS / ALIAS_NAME_CONFLICT / UNEXPECTED if a
        name is taken."""
        ...

    async def replace_collections(self, pairs: Sequence[tuple[Collection, Collection]]) -> None:
        """`replace_collection` of each (old, new), all or none; a name that one of them frees another may claim."""
        ...

    async def drop_collection(self, collection_id: CollectionId) -> None:
        """Free its names; no commit succeeds any more. Idempotent."""
        ...

    async def heads(self) -> list[Head]:
        """All live collections."""
        ...

    async def collections(self, ids: Sequence[CollectionId]) -> list[tuple[Collection, int]]:
        """The definitions (with their `ddl`) of those that are live."""
        ...

    # the chain
    async def delta(self, collection_id: CollectionId, after: Version) -> Delta:
        """What changed since; with after=0 the live files only. One consistent snapshot. COLLECTION_NOT_FOUND. Where
        records of the range are forgotten the answer is that of after=0, and says so in its `after`."""
        ...

    async def payloads(self, files: Sequence[FileId]) -> dict[FileId, bytes]:
        """Inline payloads; those of unknown files are left out."""
        ...

    async def commit(self, request: CommitRequest) -> Commit:
        """All or nothing, idempotent by uuid. FENCED if a lease's nonce differs, CONFLICT if a removed file is not
        live, COLLECTION_NOT_FOUND if dropped. METADATA_UNAVAILABLE: outcome unknown, ask `find_commit`."""
        ...

    async def find_commit(self, collection_id: CollectionId, uuid: str) -> Commit | None: ...

    async def commits(self, collection_id: CollectionId, after: Version) -> list[Commit]:
        """The chain after a version, in order."""
        ...

    # leases
    async def acquire(self, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
        """Take a free or expired lease, or one that is mine already (fresh nonce). LEASE_HELD (detail: owner) else."""
        ...

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        """Extend the (name, nonce) pairs that still hold; the names that do."""
        ...

    async def release(self, name: str, nonce: str) -> None: ...

    async def leases(self, prefix: str) -> list[Lease]:
        """The unexpired leases whose name starts with the prefix."""
        ...

    # members, for discovery through the metadata service
    async def beat(self, member: Member) -> None:
        """Insert or replace the member's record; its `beat` counter tells that it lives."""
        ...

    async def members(self) -> list[Member]: ...

    async def forget_member(self, node: NodeId) -> None: ...

    # garbage
    async def removed_files(self, older_than_s: float, limit: int, kind: FileKind | None = None) -> list[File]:
        """Records (of a kind) removed at least that long ago by the database's clock, oldest first."""
        ...

    async def dropped_collections(self, older_than_s: float) -> list[CollectionId]: ...

    async def forget_files(self, files: Sequence[FileId]) -> None: ...

    async def forget_collection(self, collection_id: CollectionId) -> None:
        """Delete every record of a dropped collection."""
        ...

    async def forget_commits(self, older_than_s: float, keep: int) -> int:
        """Delete commit records of that age, but of each collection the newest `keep`, and not all at once; how many.
        The state that they led to stays."""
        ...


# -------------------------------------------------------------------------------------------------------- discovery


class Discovery(Protocol):
    """Who is there. A hint, never part of correctness. On an outage the last view stays."""

    async def register(self, member: Member) -> None:
        """Announce or update this node; the back end keeps it alive until `deregister` or `close`."""
        ...

    async def deregister(self, node: NodeId) -> None: ...

    def watch(self) -> AsyncIterator[tuple[Member, ...]]:
        """Full snapshots of the live members, the first at once, then on each change."""
        ...

    async def close(self) -> None: ...


# ---------------------------------------------------------------------------------------------------------- routing


class Item(msgspec.Struct, frozen=True):
    """Something to place: a stable key and what it costs (bytes)."""

    key: str
    cost: int


class Router(Protocol):
    """Pure placement on stable ids (P16). Deterministic given its arguments, whatever their order."""

    def place(self, members: Sequence[Member], items: Sequence[Item], replicas: int) -> dict[str, tuple[NodeId, ...]]:
        """For each item min(replicas, len(members)) distinct nodes, first choice first; without members ()."""
        ...


# ---------------------------------------------------------------------------------------------------------- indexes

Matrix = NDArray[np.float32]
Progress = Callable[[float], None]  # the share done, 0 to 1


class VectorIndex(Protocol):
    """An index over the positions 0..rows-1 of one segment, loaded. Thread-safe for searching."""

    @property
    def bytes(self) -> int:
        """Resident memory, for the reader's bound."""
        ...

    def search(
        self, queries: Matrix, k: int, params: Mapping[str, Any], allowed: NDArray[np.uint8] | None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        """Best rows per query: scores (nq, k) in public metric form (L2 squared; IP, COSINE), best first, and positions
        (nq, k), -1 where there are fewer. `allowed` is a little-endian bitmap over positions, None for all. Scores are
        those of the stored vectors, as exact search gives them."""
        ...

    def prefers_exact(self, count: int, nq: int, k: int, params: Mapping[str, Any]) -> bool:
        """Whether scoring the `count` rows that a filter selects, one by one, is the better way to search them."""
        ...


class IndexKind(Protocol):
    """One Milvus index type."""

    name: str
    metrics: frozenset[str]

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        """The build parameters with defaults, typed (clients send strings). PARAMETER_INVALID names value and range."""
        ...

    def check_search(self, params: Mapping[str, Any], k: int) -> dict[str, Any]:
        """The search parameters with defaults, typed; unknown ones are ignored. PARAMETER_INVALID."""
        ...

    def worthwhile(self, rows: int, dim: int) -> bool:
        """Whether a segment of that size deserves this index, or is better served by exact search."""
        ...

    def build(
        self,
        vectors: Matrix,
        metric: str,
        params: Mapping[str, Any],
        threads: int,
        target: Path,
        progress: Progress | None = None,
    ) -> None:
        """Build over `vectors` (rows, dim) and write a file (without footer). CPU-bound; call in a thread or process.
        `progress` is called several times a second on the calling thread; what it raises ends the build."""
        ...

    def load(self, path: Path, metric: str, vectors: Matrix) -> VectorIndex:
        """The index over `vectors`, those it was built over, which it may keep and never writes to. Mapped, not
        copied, where possible."""
        ...
