"""DDL as values: what a proxy asks a writer to define. One tagged struct an operation, applied by `writer/define.py`.

Names are checked by the proxy (`schema/`); existence and conflicts by the writer, against the stored definition.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mishards.model import Collection, Consistency, PartitionId, Schema


class Definition(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="op"):
    """Base of the operations. `collection` is a name or an alias."""

    database: str
    collection: str


class CreateCollection(Definition, frozen=True, kw_only=True):
    """Same name and same schema again succeeds; another schema is refused. Field ids are set already."""

    schema: Schema
    shards: int = 1
    consistency: Consistency = Consistency.BOUNDED
    properties: dict[str, str] = {}


class DropCollection(Definition, frozen=True, kw_only=True):
    """A missing collection is a success; an alias that points to it is a refusal."""


class RenameCollection(Definition, frozen=True, kw_only=True):
    name: str


class AlterProperties(Definition, frozen=True, kw_only=True):
    set: dict[str, str] = {}
    delete: tuple[str, ...] = ()


class CreatePartition(Definition, frozen=True, kw_only=True):
    partition: str


class DropPartition(Definition, frozen=True, kw_only=True):
    """A missing partition is a success; a loaded one a refusal; `_default` cannot be dropped."""

    partition: str


class CreateAlias(Definition, frozen=True, kw_only=True):
    alias: str


class AlterAlias(Definition, frozen=True, kw_only=True):
    alias: str


class DropAlias(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="op"):
    """A missing alias is a success."""

    database: str
    alias: str


class CreateIndex(Definition, frozen=True, kw_only=True):
    """Parameters are checked already. The same index again succeeds; another one on the field is refused."""

    field: str
    name: str
    type: str
    metric: str
    params: dict[str, Any] = {}
    raw: dict[str, str] = {}


class DropIndex(Definition, frozen=True, kw_only=True):
    name: str


class LoadCollection(Definition, frozen=True, kw_only=True):
    replicas: int = 0  # 0: the configured default


class ReleaseCollection(Definition, frozen=True, kw_only=True):
    pass


class LoadPartitions(Definition, frozen=True, kw_only=True):
    partitions: tuple[str, ...]
    replicas: int = 0


class ReleasePartitions(Definition, frozen=True, kw_only=True):
    partitions: tuple[str, ...]


AnyDefinition = (
    CreateCollection
    | DropCollection
    | RenameCollection
    | AlterProperties
    | CreatePartition
    | DropPartition
    | CreateAlias
    | AlterAlias
    | DropAlias
    | CreateIndex
    | DropIndex
    | LoadCollection
    | ReleaseCollection
    | LoadPartitions
    | ReleasePartitions
)


class DefineRequest(msgspec.Struct, frozen=True, array_like=True):
    """`request_id`: the same in every repetition, to whichever writer; it takes effect once."""

    definition: AnyDefinition
    request_id: str = ""


class DefineReply(msgspec.Struct, frozen=True, array_like=True):
    """The definition as it stands afterwards; None when nothing is left of it."""

    collection: Collection | None
    dropped_partitions: tuple[PartitionId, ...] = ()
