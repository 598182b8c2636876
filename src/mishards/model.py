"""The nouns of Mishards: what is stored, listed and routed. Frozen values; nothing here does I/O.

They travel over `wire/` and into the metadata service as msgpack or JSON, so they are msgspec structs.
Rules: a row's version is the version of the commit that wrote it; a commit holds at most one row of a primary key (the
writer resolves the order inside a commit), so a tombstone of version t kills rows of strictly smaller version (P4).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal, NewType

import msgspec

CollectionId = NewType("CollectionId", int)
PartitionId = NewType("PartitionId", int)
FieldId = NewType("FieldId", int)
IndexId = NewType("IndexId", int)
FileId = NewType("FileId", int)
Version = NewType("Version", int)
NodeId = NewType("NodeId", str)

Role = Literal["proxy", "reader", "writer", "builder"]
ROLES: tuple[Role, ...] = ("proxy", "reader", "writer", "builder")

FIRST_FIELD_ID = 100  # as in Milvus; smaller ids are the system's
DYNAMIC_FIELD = "$meta"
VERSION_COLUMN = "$version"  # int64 column of a segment: the commit version of each row
TS_COLUMN = "$ts"  # ... and the hybrid timestamp of that commit; 0: not known
DEFAULT_PARTITION = "_default"
DEFAULT_DATABASE = "default"


class DataType(IntEnum):
    """Milvus' schema_pb2.DataType, those that are stored today."""

    BOOL = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    FLOAT = 10
    DOUBLE = 11
    VARCHAR = 21
    JSON = 23
    FLOAT_VECTOR = 101


class Consistency(IntEnum):
    """Milvus' ConsistencyLevel (P10)."""

    STRONG = 0
    SESSION = 1
    BOUNDED = 2
    EVENTUALLY = 3
    CUSTOMIZED = 4


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a schema. `dim` for vectors, `max_length` (bytes) for VARCHAR, `default` a Python value or None."""

    id: FieldId
    name: str
    type: DataType
    description: str = ""
    primary_key: bool = False
    auto_id: bool = False
    nullable: bool = False
    dynamic: bool = False  # the hidden JSON field `$meta`
    default: Any = None
    dim: int = 0
    max_length: int = 0
    type_params: dict[str, str] = {}  # as the client sent them, to be described back

    @property
    def column(self) -> str:
        """The name of this field's column in every Arrow table and file: its id, so that renaming moves no data."""
        return str(self.id)

    @property
    def is_vector(self) -> bool:
        return self.type is DataType.FLOAT_VECTOR


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a collection in the order of creation; the hidden dynamic field, if any, is the last."""

    fields: tuple[Field, ...]
    description: str = ""
    dynamic: bool = False

    @property
    def primary(self) -> Field:
        return next(field for field in self.fields if field.primary_key)

    @property
    def vectors(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.is_vector)

    @property
    def scalars(self) -> tuple[Field, ...]:
        """Every field but the vectors, the hidden dynamic field included."""
        return tuple(field for field in self.fields if not field.is_vector)

    @property
    def dynamic_field(self) -> Field | None:
        return next((field for field in self.fields if field.dynamic), None)

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def by_id(self, field_id: int) -> Field | None:
        return next((field for field in self.fields if field.id == field_id), None)


class Partition(msgspec.Struct, frozen=True):
    id: PartitionId
    name: str
    created_ts: int  # hybrid


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """An index definition of one field. `params` are the build parameters as checked, `raw` what the client sent."""

    id: IndexId
    name: str
    field_id: FieldId
    type: str  # FLAT, HNSW, IVF_FLAT, AUTOINDEX
    metric: str  # L2, IP, COSINE
    params: dict[str, Any] = {}
    raw: dict[str, str] = {}


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection's definition: everything DDL changes. One document in the metadata service, replaced as a whole."""

    id: CollectionId
    name: str
    schema: Schema
    created_ts: int  # hybrid
    updated_ts: int  # hybrid; grows with each DDL change; clients echo it as schema_timestamp
    database: str = DEFAULT_DATABASE
    shards: int = 1
    partitions: tuple[Partition, ...] = ()
    aliases: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    consistency: Consistency = Consistency.BOUNDED
    properties: dict[str, str] = {}
    loaded: bool = False
    replicas: int = 1
    released_partitions: tuple[PartitionId, ...] = ()  # of a loaded collection
    origin: str = ""  # what it was restored from, for people

    def is_called(self, name: str) -> bool:
        """Whether that is its name, or an alias of it."""
        return name == self.name or name in self.aliases

    def partition(self, name: str) -> Partition | None:
        return next((partition for partition in self.partitions if partition.name == name), None)

    def index_of(self, field_id: int) -> Index | None:
        return next((index for index in self.indexes if index.field_id == field_id), None)


class FileKind(IntEnum):
    """What a listed file holds. ROWS and TOMBSTONES are fresh, as committed; a SEGMENT is what flush and merge make."""

    ROWS = 1
    TOMBSTONES = 2
    SEGMENT = 3


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One object in storage. `kind`: fresh (Arrow stream of ROWS or TOMBSTONES), scalars (Arrow file), vectors (raw
    float32 matrix), deletes (bitmap of dead positions), index (serialised, of `index_id` on `field_id`)."""

    kind: Literal["fresh", "scalars", "vectors", "deletes", "index"]
    path: str
    bytes: int
    field_id: FieldId = FieldId(0)
    index_id: IndexId = IndexId(0)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the list of live files. Immutable but for `removed`; attaching an index or a delete bitmap replaces
    the record by another one with the same `segment_id` and shared parts (P5).

    Live at layout p when added <= p and (removed == 0 or removed > p).
    """

    id: FileId
    collection_id: CollectionId
    shard: int
    kind: FileKind
    rows: int
    bytes: int
    added: Version = Version(0)  # set by the commit
    removed: Version = Version(0)  # 0 while live
    partition_id: PartitionId = PartitionId(0)  # 0: tombstones
    segment_id: FileId = FileId(0)  # what placement hashes; equals `id` for a segment fresh from flush or merge
    horizon: Version = Version(0)  # every tombstone up to it is applied; ROWS: their own version
    dead: int = 0  # rows of the segment that its delete bitmap masks
    oldest_ts: int = 0  # hybrid, of the oldest commit that one of its rows is of; 0: not known
    newest_ts: int = 0
    sources: tuple[FileId, ...] = ()  # the `segment_id`s of what the segment was merged or rewritten from ...
    made: Version = Version(0)  # ... as they were at that version
    pk_min: int | str | None = None
    pk_max: int | str | None = None
    parts: tuple[Part, ...] = ()
    inline: bool = False  # the payload of the one `fresh` part lies in the metadata service, its path is ""

    def live_at(self, layout: int) -> bool:
        return self.added <= layout and (self.removed == 0 or self.removed > layout)

    def part(self, kind: str, field_id: int = 0, index_id: int = 0) -> Part | None:
        """The part of that kind (and field, and index), or None."""
        return next(
            (p for p in self.parts if p.kind == kind and p.field_id == field_id and p.index_id == index_id), None
        )


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a collection's chain (P3). `ts` is hybrid and grows strictly with the version."""

    collection_id: CollectionId
    version: Version
    uuid: str
    previous: str
    kind: Literal["write", "layout", "ddl"]
    ts: int


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in one collection in (after, version]: read in one transaction, or pushed by a writer.

    `added`: files added in the range that are still live or were removed again; `removed`: id -> version of removal.
    """

    collection_id: CollectionId
    after: Version
    version: Version
    ts: int  # of the commit `version`
    head: str  # uuid of the commit `version`
    previous: str = ""  # uuid of the commit `after`; "" where it is not known
    heads: dict[Version, str] = {}  # uuids of the newest commits in the range, in order; a push need not carry any
    added: tuple[File, ...] = ()
    removed: dict[FileId, Version] = {}
    payloads: dict[FileId, bytes] = {}  # inline ones a push carries along


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One live process as discovery knows it. `beat` changes with each heartbeat, `incarnation` with each start."""

    id: NodeId
    roles: tuple[Role, ...]
    address: str  # of its wire door: tcp://host:port
    http: str = ""  # of its HTTP door: http://host:port
    weight: float = 1.0
    state: Literal["ready", "draining"] = "ready"
    incarnation: str = ""
    beat: int = 0
    pid: int = 0
    started_ms: int = 0
