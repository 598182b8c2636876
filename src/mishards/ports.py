"""The seams: what the roles need of storage, metadata, discovery, routing and indexes, as Protocols.

A back end implements one of them, is found through `plugins.py`, and must pass the conformance suite in
`mishards.testing`. A method's docstring is its contract. All errors are `MishardsError` with the kind named here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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

FORKED = "forked"  # detail of a CONFLICT: the metadata service has lost commits that it had acknowledged
UNDONE = "undone"  # detail of a METADATA_UNAVAILABLE: the call has changed nothing


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
    head: str = ""  # uuid of the commit `version`


class RequestOutcome(msgspec.Struct, frozen=True):
    """What became of a client's request: applied, by that commit (version 0: by a definition), or given up for ever."""

    applied: bool
    collection_id: CollectionId
    version: Version
    ts: int


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
    follows: str = ""  # uuid of an acknowledged commit of the same collection, which must still be there
    made_of: tuple[tuple[Version, str], ...] = ()  # versions that it was computed from, with their commits' uuids
    requests: tuple[str, ...] = ()  # ids of the clients' requests that it carries out, each once for ever
    names: tuple[str, ...] = ()  # by which clients called the collection
    defined_ts: int = 0  # `updated_ts` of the oldest definition that names and rows fit; 0: check neither


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A version whose files stay (P13): a snapshot if it has neither `holder` nor end. `id` also names the frozen view
    of the collection in plans and readers. `version`, `ts`, `definition` and `expires` are set by the store."""

    id: CollectionId  # fresh
    collection_id: CollectionId
    name: str  # unique in its collection
    created_ms: int
    definition: Collection  # as it was at the version
    description: str = ""
    version: Version = Version(0)
    ts: int = 0  # of the commit `version`
    holder: CollectionId = CollectionId(0)  # the collection whose files refer to objects of this one
    expires: bool = False


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A collection to be made of files that exist: `added` and `horizon` of the files stay as they are, at most
    `version`. `pin` keeps the collection whose objects the files name, if they are not its own."""

    collection: Collection
    version: Version
    ts: int
    uuid: str  # of the first link of its chain
    files: tuple[File, ...]
    payloads: dict[FileId, bytes]
    pin: Pin | None = None
    pins: tuple[Pin, ...] = ()  # on itself, as they were; `files` then has those that are removed and that they need


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
    async def create_collection(self, collection: Collection, request: str = "") -> None:
        """Insert it at version 0 and claim its name. UNEXPECTED when a collection or alias has that name already.
        `request` here and below: the id of the client's request, recorded along; CONFLICT if it has an outcome."""
        ...

    async def replace_collection(self, old: Collection, new: Collection) -> None:
        """Replace the definition and claim/free names and aliases that differ. CONFLICT if the stored `updated_ts` is
        not `old.updated_ts`; COLLECTION_NOT_FOUND if dropped; ALIAS_EXISTS / ALIAS_NAME_CONFLICT / UNEXPECTED if a
        name is taken."""
        ...

    async def replace_collections(self, pairs: Sequence[tuple[Collection, Collection]], request: str = "") -> None:
        """`replace_collection` of each (old, new), all or none; a name that one of them frees another may claim."""
        ...

    async def drop_collection(self, collection_id: CollectionId, request: str = "") -> None:
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
        live, one of its requests has an outcome already, or a version in `made_of` is lost or another one's; with the
        detail FORKED if `follows` is lost. COLLECTION_NOT_FOUND if dropped or, with the name as detail, if one of
        `names` was taken from it since `defined_ts`; PARTITION_NOT_FOUND (detail: its id) if that of some rows was
        dropped since. METADATA_UNAVAILABLE: this call has done nothing if its detail is UNDONE, else the outcome is
        unknown, ask `find_commit`."""
        ...

    async def find_commit(self, collection_id: CollectionId, uuid: str) -> Commit | None: ...

    async def commits(self, collection_id: CollectionId, after: Version) -> list[Commit]:
        """The chain after a version, in order."""
        ...

    # requests of clients
    async def find_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        """Those of the requests that have an outcome. One whose commit is in flight has none yet."""
        ...

    async def abort_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        """The outcome of each: what has not taken effect by now never will. Waits for commits in flight."""
        ...

    async def forget_requests(self, older_than_s: float, limit: int) -> int:
        """Delete the oldest records of that age by the database's clock, which nobody repeats any more; how many."""
        ...

    # pins
    async def create_pin(self, pin: Pin, ttl_s: float | None = None, base: CollectionId | None = None) -> Pin:
        """Pin the newest version, or that of the lasting pin `base`, for ever or for a time; the pin as it is stored.
        Idempotent by id. UNEXPECTED if the name is taken, CAPACITY_EXCEEDED, COLLECTION_NOT_FOUND, GONE (base)."""
        ...

    async def renew_pin(self, id: CollectionId, ttl_s: float) -> None:
        """Extend a pin that has an end. GONE if it has come."""
        ...

    async def drop_pin(self, id: CollectionId) -> None:
        """Idempotent. Its files may be collected at once."""
        ...

    async def pins(self, collection_id: CollectionId | None = None) -> list[Pin]:
        """Those in force, the oldest first."""
        ...

    async def pinned(self, id: CollectionId) -> tuple[Pin, Delta]:
        """A pin, and the files live at its version as a delta from nothing; `removed` is 0 in them. GONE."""
        ...

    async def import_collection(self, imported: Import) -> None:
        """Make a collection whose chain begins at a version. Idempotent by its id. Refuses names as `create_collection`
        does; CONFLICT when `pin` pins a version that no lasting pin keeps; GONE if its folder was taken, see below."""
        ...

    async def open_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        """Objects of a collection that is to be imported will be stored, under a fresh id. Idempotent."""
        ...

    async def renew_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        """It goes on. GONE if the folder was taken, which may happen once the time is over by the database's clock."""
        ...

    # leases
    async def acquire(self, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
        """Take a free or expired lease, or one that is mine already (fresh nonce). LEASE_HELD (detail: owner) else."""
        ...

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        """Extend the (name, nonce) pairs that still hold; the names that do."""
        ...

    async def release(self, name: str, nonce: str) -> None: ...

    async def hand_over(self, name: str, nonce: str, to: NodeId, new_nonce: str, ttl_s: float) -> bool:
        """Make the lease another node's, who may `acquire` it at once as his own; False if it does not hold any more.
        Nobody knows `new_nonce`, so that nothing is committed under the lease until then."""
        ...

    async def leases(self, prefix: str, expired: bool = False) -> list[Lease]:
        """The leases whose name starts with the prefix: those in force, or all, in which case `left_s` may be
        negative."""
        ...

    # members, for discovery through the metadata service
    async def beat(self, member: Member) -> None:
        """Insert or replace the member's record; its `beat` counter tells that it lives."""
        ...

    async def members(self) -> list[Member]: ...

    async def forget_member(self, node: NodeId) -> None: ...

    # garbage
    async def removed_files(
        self,
        older_than_s: float,
        limit: int,
        kind: FileKind | None = None,
        needed: Mapping[CollectionId, Version] = MappingProxyType({}),
        pinned: bool = False,
    ) -> list[File]:
        """Records (of a kind) removed at least that long ago by the database's clock, oldest first; of the collections
        in `needed` only those removed at that version or before. Those that a pin needs, those of
        dropped collections, and parts that belong to another one are left out unless `pinned`."""
        ...

    async def dropped_collections(self, older_than_s: float) -> list[CollectionId]:
        """Those dropped that long ago by the database's clock whose objects no pin needs."""
        ...

    async def forget_files(self, files: Sequence[FileId]) -> None: ...

    async def forget_collection(self, collection_id: CollectionId) -> None:
        """Delete every record of a dropped collection; its folder belongs to no collection then."""
        ...

    async def take_folders(self, quarantine_s: float, limit: int) -> list[CollectionId]:
        """Collections whose folders are due to be emptied: forgotten ones, and, a quarantine after nobody could do so
        any more, those that nobody went on to import. Whatever lies there, or will, is garbage: ids are never used
        again."""
        ...

    async def rest_folders(self, ids: Sequence[CollectionId]) -> None:
        """These were emptied; they are due again when their time on the list has about doubled."""
        ...

    async def forget_commits(self, older_than_s: float, keep: int) -> int:
        """Delete commit records of that age, but of each collection the newest `keep`, and not all at once; how many.
        The state that they led to stays."""
        ...

    async def forget_leases(self, older_than_s: float) -> int:
        """Delete the leases that ran out that long ago; how many. Their names are free, their nonces hold no more."""
        ...

    async def orphans(self, collection_id: CollectionId, paths: Sequence[str]) -> list[str]:
        """Those of the collection's paths that no record names, live or removed, and none ever will: no lease has
        their token as its nonce any more. Once true of a path, true for ever. Reads every record of the collection."""
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
