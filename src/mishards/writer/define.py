"""What each definition (DDL) makes of what is defined already: pure functions with Milvus' rules and messages.

`outcome` decides; `definitions.py` carries the changes out and decides anew when somebody else was faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from msgspec.structs import replace

from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.model import DEFAULT_PARTITION, Collection, CollectionId, Index, IndexId, Partition, PartitionId
from mishards.wire import definitions as d

PARTITIONS_MAX = 1024  # Milvus' limit
IDS_WANTED = 2  # the most fresh ids that one definition uses

Find = Callable[[str, str], Collection | None]  # (database, name or alias)


class Fresh(NamedTuple):
    """What a definition may use beyond what is defined."""

    now_ts: int  # hybrid
    first_id: int  # of IDS_WANTED fresh ones
    replicas: int  # of a load that names none


class Change(NamedTuple):
    """Of one collection: create (no `old`), replace, or drop (no `new`)."""

    old: Collection | None
    new: Collection | None


class Outcome(NamedTuple):
    """What changes at once, nothing when everything is as asked already, and the definition as it stands afterwards.
    Several changes are all replacements."""

    changes: tuple[Change, ...]
    collection: Collection | None


def outcome(definition: d.AnyDefinition, find: Find, fresh: Fresh) -> Outcome:
    """What to change so that `definition` holds; the error that Milvus would give when it cannot."""
    match definition:
        case d.CreateCollection():
            return _create_collection(definition, find, fresh)
        case d.DropCollection():
            return _drop_collection(definition, find)
        case d.RenameCollection():
            return _rename_collection(definition, find, fresh)
        case d.CreateAlias():
            return _create_alias(definition, find, fresh)
        case d.AlterAlias():
            return _alter_alias(definition, find, fresh)
        case d.DropAlias():
            return _drop_alias(definition, find, fresh)
        case _:
            old = _require(definition, find)
            return _replaced(old, _edited(definition, old, fresh), fresh)


def _edited(definition: d.AnyDefinition, old: Collection, fresh: Fresh) -> Collection:
    """The definitions that change one collection and touch no name."""
    match definition:
        case d.AlterProperties():
            return _alter_properties(definition, old)
        case d.CreatePartition():
            return _create_partition(definition, old, fresh)
        case d.DropPartition():
            return _drop_partition(definition, old)
        case d.CreateIndex():
            return _create_index(definition, old, fresh)
        case d.DropIndex():
            return _drop_index(definition, old)
        case d.LoadCollection():
            return _load(old, (), _replicas(definition.replicas, old, fresh))
        case d.ReleaseCollection():
            return replace(old, loaded=False, released_partitions=())
        case d.LoadPartitions():
            return _load_partitions(definition, old, fresh)
        case d.ReleasePartitions():
            return _release_partitions(definition, old)
        case _:
            raise MishardsError(Kind.UNIMPLEMENTED, f"definition {type(definition).__name__} is unknown")


def _replaced(old: Collection, new: Collection, fresh: Fresh) -> Outcome:
    if new == old:
        return Outcome((), old)
    new = replace(new, updated_ts=_after(old.updated_ts, fresh))
    return Outcome((Change(old, new),), new)


def _after(ts: int, fresh: Fresh) -> int:
    """A timestamp of now that is larger than `ts`, whatever the wall clock did."""
    return max(fresh.now_ts, ts + 1)


def _require(definition: d.Definition, find: Find) -> Collection:
    found = find(definition.database, definition.collection)
    if found is None:
        raise collection_not_found(definition.collection, definition.database)
    return found


# ------------------------------------------------------------------------------------------------------ collections


def _create_collection(definition: d.CreateCollection, find: Find, fresh: Fresh) -> Outcome:
    name, old = definition.collection, find(definition.database, definition.collection)
    if old is None:
        partition = Partition(PartitionId(fresh.first_id + 1), DEFAULT_PARTITION, fresh.now_ts)
        new = Collection(
            id=CollectionId(fresh.first_id),
            name=name,
            schema=definition.schema,
            created_ts=fresh.now_ts,
            updated_ts=fresh.now_ts,
            database=definition.database,
            shards=definition.shards,
            partitions=(partition,),
            consistency=definition.consistency,
            properties=definition.properties,
        )
        return Outcome((Change(None, new),), new)
    if old.name != name:
        _refuse(f"collection name [{name}] conflicts with an existing alias, please choose a unique name")
    if (old.schema, old.shards) != (definition.schema, definition.shards):
        _refuse(f"create duplicate collection with different parameters, collection: {name}")
    return Outcome((), old)


def _drop_collection(definition: d.DropCollection, find: Find) -> Outcome:
    name, old = definition.collection, find(definition.database, definition.collection)
    if old is None:
        return Outcome((), None)
    if old.name != name:
        _refuse(f"cannot drop the collection via alias = {name}")
    if old.aliases:
        _refuse(
            f"unable to drop the collection [{name}] because it has associated aliases [{' '.join(old.aliases)}], "
            "please remove all aliases before dropping the collection"
        )
    return Outcome((Change(old, None),), None)


def _rename_collection(definition: d.RenameCollection, find: Find, fresh: Fresh) -> Outcome:
    database, name = definition.database, definition.collection
    old = find(database, name)
    if old is not None and old.name != name:
        _refuse(f"unsupported use an alias to rename collection, alias:{name}")
    if find(database, definition.name) is not None:
        _refuse(f"duplicated new collection name {database}:{definition.name} with other collection name or alias")
    old = _require(definition, find)
    return _replaced(old, replace(old, name=definition.name), fresh)


def _alter_properties(definition: d.AlterProperties, old: Collection) -> Collection:
    kept = {key: value for key, value in old.properties.items() if key not in definition.delete}
    return replace(old, properties=kept | definition.set)


# ---------------------------------------------------------------------------------------------------------- aliases


def _create_alias(definition: d.CreateAlias, find: Find, fresh: Fresh) -> Outcome:
    database, alias = definition.database, definition.alias
    old, holder = _require(definition, find), find(database, alias)
    if holder is None:
        return _replaced(old, replace(old, aliases=(*old.aliases, alias)), fresh)
    if holder.name == alias:
        raise MishardsError(
            Kind.ALIAS_NAME_CONFLICT, f"alias and collection name conflict[database={database}][alias={alias}]"
        )
    if holder.id != old.id:
        raise MishardsError(
            Kind.ALIAS_EXISTS,
            f"{alias} is alias to another collection: {holder.name}: "
            f"alias already exist[database={database}][alias={alias}]",
        )
    return Outcome((), old)


def _alter_alias(definition: d.AlterAlias, find: Find, fresh: Fresh) -> Outcome:
    """Moves an alias from its holder."""
    alias, old = definition.alias, _require(definition, find)
    holder = _alias_holder(definition.database, alias, find)
    if holder is None:
        raise MishardsError(Kind.ALIAS_NOT_FOUND, f"alias not found[database={definition.database}][alias={alias}]")
    if holder.id == old.id:
        return Outcome((), old)
    freed = _replaced(holder, _without_alias(holder, alias), fresh)
    claimed = _replaced(old, replace(old, aliases=(*old.aliases, alias)), fresh)
    return Outcome((*freed.changes, *claimed.changes), claimed.collection)


def _drop_alias(definition: d.DropAlias, find: Find, fresh: Fresh) -> Outcome:
    holder = _alias_holder(definition.database, definition.alias, find)
    if holder is None:
        return Outcome((), None)
    return _replaced(holder, _without_alias(holder, definition.alias), fresh)


def _alias_holder(database: str, alias: str, find: Find) -> Collection | None:
    found = find(database, alias)
    return found if found is not None and found.name != alias else None


def _without_alias(collection: Collection, alias: str) -> Collection:
    return replace(collection, aliases=tuple(other for other in collection.aliases if other != alias))


# ------------------------------------------------------------------------------------------------------- partitions


def _create_partition(definition: d.CreatePartition, old: Collection, fresh: Fresh) -> Collection:
    if old.partition(definition.partition) is not None:
        return old
    if len(old.partitions) >= PARTITIONS_MAX:
        _refuse(
            f"partition number ({len(old.partitions)}) exceeds max configuration ({PARTITIONS_MAX}), "
            f"collection: {old.name}"
        )
    partition = Partition(PartitionId(fresh.first_id), definition.partition, fresh.now_ts)
    return replace(old, partitions=(*old.partitions, partition))


def _drop_partition(definition: d.DropPartition, old: Collection) -> Collection:
    if definition.partition == DEFAULT_PARTITION:
        _refuse("default partition cannot be deleted: _default")
    partition = old.partition(definition.partition)
    if partition is None:
        return old
    if old.loaded and partition.id not in old.released_partitions:
        _refuse("partition cannot be dropped, partition is loaded, please release it first")
    return replace(
        old,
        partitions=tuple(other for other in old.partitions if other.id != partition.id),
        released_partitions=tuple(id for id in old.released_partitions if id != partition.id),
    )


# ---------------------------------------------------------------------------------------------------------- indexes


def _create_index(definition: d.CreateIndex, old: Collection, fresh: Fresh) -> Collection:
    field = old.schema.field(definition.field)
    if field is None:
        raise MishardsError(Kind.FIELD_NOT_FOUND, f"cannot create index on non-exist field: {definition.field}")
    index = Index(
        id=IndexId(fresh.first_id),
        name=definition.name or field.name,
        field_id=field.id,
        type=definition.type,
        metric=definition.metric,
        params=definition.params,
        raw=definition.raw,
    )
    present = old.index_of(field.id)
    if present is not None and replace(index, id=present.id, raw=present.raw) == present:
        return old
    if present is not None or any(other.name == index.name for other in old.indexes):
        _refuse("CreateIndex failed: at most one distinct index is allowed per field")
    return replace(old, indexes=(*old.indexes, index))


def _drop_index(definition: d.DropIndex, old: Collection) -> Collection:
    doomed = next((index for index in old.indexes if index.name == definition.name), None)
    if doomed is None:
        return old
    field = old.schema.by_id(doomed.field_id)
    if old.loaded and field is not None and field.is_vector:
        _refuse("index cannot be dropped, collection is loaded, please release it first")
    return replace(old, indexes=tuple(index for index in old.indexes if index.id != doomed.id))


# --------------------------------------------------------------------------------------------------------- load


def _load(old: Collection, released: tuple[PartitionId, ...], replicas: int) -> Collection:
    if any(old.index_of(field.id) is None for field in old.schema.vectors):
        raise MishardsError(Kind.INDEX_NOT_FOUND, f"index not found[collection={old.name}]")
    return replace(old, loaded=True, released_partitions=released, replicas=replicas)


def _load_partitions(definition: d.LoadPartitions, old: Collection, fresh: Fresh) -> Collection:
    """Loads them beside what is loaded; of a collection that is not loaded, them alone."""
    wanted = _partition_ids(definition.partitions, old)
    released = old.released_partitions if old.loaded else tuple(partition.id for partition in old.partitions)
    still_released = tuple(id for id in released if id not in wanted)
    return _load(old, still_released, _replicas(definition.replicas, old, fresh))


def _replicas(wanted: int, old: Collection, fresh: Fresh) -> int:
    """What the load says; else as it is loaded already; else the configured number."""
    return wanted or (old.replicas if old.loaded else fresh.replicas)


def _release_partitions(definition: d.ReleasePartitions, old: Collection) -> Collection:
    """Releasing the last loaded partition releases the collection."""
    released = _partition_ids(definition.partitions, old) | set(old.released_partitions)
    if not old.loaded:
        return old
    if all(partition.id in released for partition in old.partitions):
        return replace(old, loaded=False, released_partitions=())
    return replace(old, released_partitions=tuple(p.id for p in old.partitions if p.id in released))


def _partition_ids(names: tuple[str, ...], collection: Collection) -> set[PartitionId]:
    found = {partition.name: partition.id for partition in collection.partitions}
    for name in names:
        if name not in found:
            raise MishardsError(Kind.PARTITION_NOT_FOUND, f"partition not found[partition={name}]")
    return {found[name] for name in names}


def _refuse(message: str) -> NoReturn:
    raise MishardsError(Kind.UNEXPECTED, message)
