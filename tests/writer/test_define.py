"""Milvus' rules for definitions, as tables: what is defined, what is asked, what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from writer_house import SCHEMA

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, Index, IndexId, Partition, PartitionId
from mishards.wire import definitions as d
from mishards.writer.define import PARTITIONS_MAX, Change, Fresh, Outcome, outcome

FRESH = Fresh(now_ts=1_000, first_id=50, replicas=2)
DEFAULT = Partition(PartitionId(10), "_default", 1)
P2 = Partition(PartitionId(11), "p2", 1)
VECTOR_INDEX = Index(id=IndexId(20), name="vector", field_id=SCHEMA.fields[2].id, type="HNSW", metric="L2")
NAME_INDEX = Index(id=IndexId(21), name="name", field_id=SCHEMA.fields[1].id, type="INVERTED", metric="")
BOOKS = Collection(
    id=CollectionId(1),
    name="books",
    schema=SCHEMA,
    created_ts=1,
    updated_ts=1,
    partitions=(DEFAULT, P2),
    aliases=("novels",),
    indexes=(VECTOR_INDEX, NAME_INDEX),
)
FILMS = replace(BOOKS, id=CollectionId(2), name="films", aliases=(), indexes=())
LOADED = replace(BOOKS, loaded=True)


def find_in(*collections: Collection) -> Callable[[str, str], Collection | None]:
    names = {(each.database, name): each for each in collections for name in (each.name, *each.aliases)}
    return lambda database, name: names.get((database, name))


def apply(definition: d.AnyDefinition, *defined: Collection) -> Outcome:
    return outcome(definition, find_in(*(defined or (BOOKS, FILMS))), FRESH)


def on(operation: Any, collection: str = "books", **options: Any) -> Any:
    return operation(database="default", collection=collection, **options)


def alias_gone(alias: str) -> d.DropAlias:
    return d.DropAlias(database="default", alias=alias)


def other_schema() -> Any:
    return replace(SCHEMA, fields=(*SCHEMA.fields[:2], replace(SCHEMA.fields[2], dim=9)))


NO_CHANGE: list[tuple[d.AnyDefinition, Collection]] = [
    (on(d.CreateCollection, schema=SCHEMA), BOOKS),
    (on(d.DropCollection, "nowhere"), BOOKS),
    (on(d.CreatePartition, partition="p2"), BOOKS),
    (on(d.DropPartition, partition="nowhere"), BOOKS),
    (on(d.CreateAlias, alias="novels"), BOOKS),
    (on(d.AlterAlias, alias="novels"), BOOKS),
    (alias_gone("nowhere"), BOOKS),
    (alias_gone("books"), BOOKS),
    (on(d.CreateIndex, field="vector", name="", type="HNSW", metric="L2", raw={"as": "sent"}), BOOKS),
    (on(d.DropIndex, name="nowhere"), BOOKS),
    (on(d.ReleaseCollection), BOOKS),
    (on(d.ReleasePartitions, partitions=("p2",)), BOOKS),
    (on(d.LoadCollection), LOADED),
    (on(d.LoadPartitions, partitions=("p2",)), LOADED),
    (on(d.AlterProperties, delete=("nowhere",)), BOOKS),
]


@pytest.mark.parametrize(("definition", "defined"), NO_CHANGE, ids=lambda each: type(each).__name__)
def test_what_holds_already_changes_nothing(definition: d.AnyDefinition, defined: Collection) -> None:
    """Asking again for what is defined, or for the end of what is not, is a success without a change."""
    assert apply(definition, defined).changes == ()


CHANGES: list[tuple[d.AnyDefinition, Collection, dict[str, Any]]] = [
    (on(d.RenameCollection, name="tomes"), BOOKS, {"name": "tomes"}),
    (on(d.AlterProperties, set={"a": "2"}, delete=("b",)), replace(BOOKS, properties={"b": "1", "c": "3"}),
     {"properties": {"c": "3", "a": "2"}}),
    (on(d.CreatePartition, partition="p3"), BOOKS,
     {"partitions": (DEFAULT, P2, Partition(PartitionId(50), "p3", 1_000))}),
    (on(d.DropPartition, partition="p2"), BOOKS, {"partitions": (DEFAULT,)}),
    (on(d.DropPartition, partition="p2"), replace(LOADED, released_partitions=(P2.id,)),
     {"partitions": (DEFAULT,), "released_partitions": ()}),
    (on(d.CreateAlias, "novels", alias="tales"), BOOKS, {"aliases": ("novels", "tales")}),
    (alias_gone("novels"), BOOKS, {"aliases": ()}),
    (on(d.CreateIndex, field="vector", name="v", type="FLAT", metric="IP"), replace(BOOKS, indexes=()),
     {"indexes": (Index(id=IndexId(50), name="v", field_id=SCHEMA.fields[2].id, type="FLAT", metric="IP"),)}),
    (on(d.DropIndex, name="vector"), BOOKS, {"indexes": (NAME_INDEX,)}),
    (on(d.DropIndex, name="name"), LOADED, {"indexes": (VECTOR_INDEX,)}),
    (on(d.LoadCollection), BOOKS, {"loaded": True, "replicas": 2}),
    (on(d.LoadCollection, replicas=3), BOOKS, {"loaded": True, "replicas": 3}),
    (on(d.LoadCollection), replace(LOADED, released_partitions=(P2.id,)), {"released_partitions": ()}),
    (on(d.LoadPartitions, partitions=("p2",)), BOOKS,
     {"loaded": True, "replicas": 2, "released_partitions": (DEFAULT.id,)}),
    (on(d.LoadPartitions, partitions=("p2",)), replace(LOADED, released_partitions=(P2.id,)),
     {"released_partitions": ()}),
    (on(d.ReleaseCollection), replace(LOADED, released_partitions=(P2.id,)),
     {"loaded": False, "released_partitions": ()}),
    (on(d.ReleasePartitions, partitions=("p2",)), LOADED, {"released_partitions": (P2.id,)}),
    (on(d.ReleasePartitions, partitions=("p2", "_default")), LOADED, {"loaded": False}),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "old", "changed"), CHANGES, ids=lambda each: type(each).__name__)
def test_a_definition_replaces_what_it_names(
    definition: d.AnyDefinition, old: Collection, changed: dict[str, Any]
) -> None:
    """A definition changes the fields that it is about, and the timestamp."""
    new = replace(old, updated_ts=1_000, **changed)

    assert apply(definition, old) == Outcome((Change(old, new),), new)


REFUSALS: list[tuple[d.AnyDefinition, Collection, Kind, str]] = [
    (on(d.CreateCollection, schema=other_schema()), BOOKS, Kind.UNEXPECTED,
     "create duplicate collection with different parameters, collection: books"),
    (on(d.CreateCollection, schema=SCHEMA, shards=2), BOOKS, Kind.UNEXPECTED, "create duplicate collection"),
    (on(d.CreateCollection, "novels", schema=SCHEMA), BOOKS, Kind.UNEXPECTED,
     "collection name [novels] conflicts with an existing alias, please choose a unique name"),
    (on(d.DropCollection), BOOKS, Kind.UNEXPECTED,
     "unable to drop the collection [books] because it has associated aliases [novels], "
     "please remove all aliases before dropping the collection"),
    (on(d.DropCollection, "novels"), BOOKS, Kind.UNEXPECTED, "cannot drop the collection via alias = novels"),
    (on(d.RenameCollection, name="films"), BOOKS, Kind.UNEXPECTED,
     "duplicated new collection name default:films with other collection name or alias"),
    (on(d.RenameCollection, name="books"), BOOKS, Kind.UNEXPECTED, "duplicated new collection name default:books"),
    (on(d.RenameCollection, "films", name="novels"), BOOKS, Kind.UNEXPECTED, "duplicated new collection name"),
    (on(d.RenameCollection, "novels", name="x"), BOOKS, Kind.UNEXPECTED, "unsupported use an alias to rename"),
    (on(d.RenameCollection, "nowhere", name="x"), BOOKS, Kind.COLLECTION_NOT_FOUND,
     "collection not found[database=default][collection=nowhere]"),
    (on(d.CreateAlias, "nowhere", alias="x"), BOOKS, Kind.COLLECTION_NOT_FOUND, "collection not found"),
    (on(d.CreateAlias, alias="films"), BOOKS, Kind.ALIAS_NAME_CONFLICT,
     "alias and collection name conflict[database=default][alias=films]"),
    (on(d.CreateAlias, "films", alias="novels"), BOOKS, Kind.ALIAS_EXISTS,
     "novels is alias to another collection: books: alias already exist[database=default][alias=novels]"),
    (on(d.AlterAlias, alias="nowhere"), BOOKS, Kind.ALIAS_NOT_FOUND,
     "alias not found[database=default][alias=nowhere]"),
    (on(d.DropPartition, partition="_default"), BOOKS, Kind.UNEXPECTED, "default partition cannot be deleted"),
    (on(d.DropPartition, partition="p2"), LOADED, Kind.UNEXPECTED,
     "partition cannot be dropped, partition is loaded, please release it first"),
    (on(d.CreateIndex, field="nowhere", name="", type="HNSW", metric="L2"), BOOKS, Kind.FIELD_NOT_FOUND,
     "cannot create index on non-exist field: nowhere"),
    (on(d.CreateIndex, field="vector", name="", type="FLAT", metric="L2"), BOOKS, Kind.UNEXPECTED,
     "at most one distinct index is allowed per field"),
    (on(d.CreateIndex, field="id", name="vector", type="INVERTED", metric=""), BOOKS, Kind.UNEXPECTED,
     "at most one distinct index is allowed per field"),
    (on(d.DropIndex, name="vector"), LOADED, Kind.UNEXPECTED,
     "index cannot be dropped, collection is loaded, please release it first"),
    (on(d.LoadCollection, "films"), BOOKS, Kind.INDEX_NOT_FOUND, "index not found[collection=films]"),
    (on(d.LoadPartitions, "films", partitions=("p2",)), BOOKS, Kind.INDEX_NOT_FOUND, "index not found"),
    (on(d.LoadPartitions, partitions=("x",)), BOOKS, Kind.PARTITION_NOT_FOUND, "partition not found[partition=x]"),
    (on(d.ReleasePartitions, partitions=("x",)), BOOKS, Kind.PARTITION_NOT_FOUND, "partition not found"),
    (on(d.LoadCollection, "nowhere"), BOOKS, Kind.COLLECTION_NOT_FOUND, "collection not found"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "defined", "kind", "message"), REFUSALS, ids=lambda each: type(each).__name__)
def test_a_refusal_has_the_kind_and_words_of_milvus(
    definition: d.AnyDefinition, defined: Collection, kind: Kind, message: str
) -> None:
    """What cannot be is refused as Milvus refuses it, since clients look at code and words."""
    with pytest.raises(MishardsError) as raised:
        apply(definition, defined, FILMS)

    assert raised.value.kind is kind
    assert message in raised.value.message


def test_a_new_collection_has_a_default_partition() -> None:
    """A collection begins with fresh ids, one partition and one timestamp."""
    result = apply(on(d.CreateCollection, "maps", schema=SCHEMA, shards=3, properties={"a": "1"}))

    new = result.collection
    assert new is not None
    assert result.changes == (Change(None, new),)
    assert (new.id, new.name, new.shards, new.properties) == (50, "maps", 3, {"a": "1"})
    assert new.partitions == (Partition(PartitionId(51), "_default", 1_000),)
    assert (new.created_ts, new.updated_ts, new.loaded) == (1_000, 1_000, False)


def test_an_alias_moves_in_two_steps() -> None:
    """Altering an alias frees it where it was before it is claimed where it goes."""
    result = apply(on(d.AlterAlias, "films", alias="novels"))

    freed, claimed = result.changes
    assert (freed.old, freed.new) == (BOOKS, replace(BOOKS, aliases=(), updated_ts=1_000))
    assert (claimed.old, claimed.new) == (FILMS, replace(FILMS, aliases=("novels",), updated_ts=1_000))
    assert result.collection == claimed.new


def test_a_collection_without_aliases_is_dropped() -> None:
    """Nothing is left of a dropped collection, loaded or not."""
    loaded = replace(FILMS, loaded=True)

    assert apply(on(d.DropCollection, "films"), loaded) == Outcome((Change(loaded, None),), None)


def test_partitions_are_limited() -> None:
    """One partition more than Milvus allows is refused with both numbers."""
    many = tuple(Partition(PartitionId(n), f"p{n}", 1) for n in range(PARTITIONS_MAX))

    with pytest.raises(MishardsError, match=r"partition number \(1024\) exceeds max configuration \(1024\)"):
        apply(on(d.CreatePartition, partition="x"), replace(BOOKS, partitions=many))


def test_timestamps_grow_whatever_the_clock_says() -> None:
    """A definition made after the wall clock was set back has a larger timestamp all the same."""
    ahead = replace(BOOKS, updated_ts=5_000)

    result = apply(on(d.CreatePartition, partition="x"), ahead)

    assert result.collection is not None
    assert result.collection.updated_ts == 5_001
