"""What clients do besides reading and writing: collections, partitions, aliases, indexes, loading; async and ORM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from making import make_collection
from pymilvus import AsyncMilvusClient, DataType, MilvusClient, MilvusException
from pymilvus.client.types import LoadState
from servers import Server

pytestmark = pytest.mark.process

VECTOR = [1.0, 0.0, 0.0, 0.0]


def _rows(keys: range) -> list[dict[str, Any]]:
    return [{"id": key, "vector": [float(key), 1.0, 0.0, 0.0]} for key in keys]


def _count(client: MilvusClient, name: str, **arguments: Any) -> int:
    answer = client.query(name, output_fields=["count(*)"], consistency_level="Strong", **arguments)
    return int(answer[0]["count(*)"])


def test_quick_set_up(client: MilvusClient, name: str) -> None:
    """`create_collection(name, dimension=...)` makes a collection that can be used at once."""
    client.create_collection(name, dimension=4)

    client.insert(name, [{"id": 1, "vector": VECTOR, "colour": "red"}, {"id": 2, "vector": [0.0, 1.0, 0.0, 0.0]}])
    hits = client.search(name, [VECTOR], limit=2, output_fields=["colour"], consistency_level="Strong")[0]
    assert [(hit["id"], round(hit["distance"], 6)) for hit in hits] == [(1, 1.0), (2, 0.0)]
    assert hits[0]["entity"]["colour"] == "red"


def test_quick_set_up_with_generated_text_keys(client: MilvusClient, name: str) -> None:
    """The quick set-up's options work: names of the fields, VARCHAR keys, generated keys, the metric."""
    client.create_collection(
        name,
        dimension=4,
        primary_field_name="key",
        id_type="string",
        max_length=64,
        vector_field_name="embedding",
        metric_type="L2",
        auto_id=True,
    )

    ids = client.insert(name, [{"embedding": VECTOR}])["ids"]
    hit = client.search(name, [VECTOR], limit=1, consistency_level="Strong")[0][0]
    assert (hit["key"], hit["distance"]) == (ids[0], 0.0)


def test_describe(client: MilvusClient, name: str) -> None:
    """A description gives back what was defined, without the hidden field."""
    schema = client.create_schema(enable_dynamic_field=True, description="all kinds")
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64, description="the key")
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field("n", DataType.INT32, nullable=True, default_value=5)
    client.create_collection(name, schema=schema, consistency_level="Session", properties={"mine": "1"})

    described = client.describe_collection(name)

    assert described["collection_name"] == name
    assert described["description"] == "all kinds"
    assert described["enable_dynamic_field"] is True
    assert described["consistency_level"] == 1
    assert described["properties"].get("mine") == "1"
    key, vector, number = described["fields"]
    assert (key["name"], key["type"], key["is_primary"], key["params"]) == (
        "key",
        DataType.VARCHAR,
        True,
        {"max_length": 64},
    )
    assert key["description"] == "the key"
    assert (vector["name"], vector["type"], vector["params"]) == ("vector", DataType.FLOAT_VECTOR, {"dim": 4})
    assert (number["name"], number["type"], number["nullable"]) == ("n", DataType.INT32, True)
    assert client.has_collection(name)
    assert name in client.list_collections()
    assert not client.has_collection("nowhere")


def test_creating_twice(client: MilvusClient, name: str) -> None:
    """The same definition again is no error and changes nothing."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(3)))
    made = client.describe_collection(name)["collection_id"]

    make_collection(client, name, dim=4)

    assert client.describe_collection(name)["collection_id"] == made
    assert _count(client, name) == 3


def test_properties(client: MilvusClient, name: str) -> None:
    """Properties are set, described and deleted."""
    make_collection(client, name, dim=4)

    client.alter_collection_properties(name, {"mmap.enabled": "true", "note": "x"})
    assert client.describe_collection(name)["properties"]["mmap.enabled"] == "true"
    client.drop_collection_properties(name, ["note"])
    assert "note" not in client.describe_collection(name)["properties"]


def test_rename(client: MilvusClient, name: str) -> None:
    """A renamed collection has its rows under the new name, and the old name is free."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(5)))

    client.rename_collection(name, f"{name}_new")

    assert not client.has_collection(name)
    assert _count(client, f"{name}_new") == 5
    make_collection(client, name, dim=2)
    assert _count(client, name) == 0
    client.drop_collection(f"{name}_new")


def test_aliases(client: MilvusClient, name: str) -> None:
    """An alias stands for its collection in every call and moves to another one in one step."""
    alias, second = f"{name}_alias", f"{name}_second"
    make_collection(client, name, dim=4)
    make_collection(client, second, dim=4)
    client.insert(name, _rows(range(5)))

    client.create_alias(name, alias)
    assert client.describe_alias(alias)["collection_name"] == name
    assert alias in client.list_aliases(name)["aliases"]
    assert alias in client.describe_collection(name)["aliases"]
    assert _count(client, alias) == 5
    client.insert(alias, _rows(range(5, 7)))
    assert _count(client, name) == 7
    with pytest.raises(MilvusException):
        client.drop_collection(name)

    client.alter_alias(second, alias)
    assert _count(client, alias) == 0
    assert client.list_aliases(name)["aliases"] == []
    client.drop_alias(alias)
    client.drop_alias(alias)
    assert not client.has_collection(alias)
    client.drop_collection(second)


def test_partitions(client: MilvusClient, name: str) -> None:
    """Rows live in the partition they were put in; a partition is counted, searched, released and dropped by itself."""
    make_collection(client, name, dim=4)
    client.create_partition(name, "north")
    client.create_partition(name, "south")
    assert sorted(client.list_partitions(name)) == ["_default", "north", "south"]
    assert client.has_partition(name, "north")
    assert not client.has_partition(name, "west")
    client.insert(name, _rows(range(10)))
    client.insert(name, _rows(range(10, 30)), partition_name="north")
    client.insert(name, _rows(range(30, 60)), partition_name="south")

    assert _count(client, name) == 60
    assert _count(client, name, partition_names=["north"]) == 20
    client.delete(name, filter="id >= 0", partition_name="north")
    assert _count(client, name) == 40
    client.flush(name)
    assert client.get_partition_stats(name, "south")["row_count"] == 30

    client.release_partitions(name, ["south"])
    client.drop_partition(name, "south")
    client.drop_partition(name, "south")
    assert sorted(client.list_partitions(name)) == ["_default", "north"]
    assert _count(client, name) == 10


def test_partitions_loaded_one_by_one(client: MilvusClient, name: str) -> None:
    """Only loaded partitions are searched."""
    make_collection(client, name, dim=4)
    client.create_partition(name, "north")
    client.insert(name, _rows(range(10)))
    client.insert(name, _rows(range(10, 30)), partition_name="north")
    client.release_collection(name)

    client.load_partitions(name, ["north"])

    assert client.get_load_state(name, "north")["state"] == LoadState.Loaded
    assert client.get_load_state(name, "_default")["state"] == LoadState.NotLoad
    assert _count(client, name, partition_names=["north"]) == 20
    with pytest.raises(MilvusException) as refused:
        client.search(name, [VECTOR], partition_names=["_default"])
    assert refused.value.code in (201, 202)
    client.load_collection(name)
    assert _count(client, name) == 30


def test_load_states(client: MilvusClient, name: str) -> None:
    """A collection is loaded and released, and says which it is."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(10)))
    assert client.get_load_state(name)["state"] == LoadState.Loaded

    client.release_collection(name)
    client.release_collection(name)
    assert client.get_load_state(name)["state"] == LoadState.NotLoad
    with pytest.raises(MilvusException) as refused:
        client.search(name, [VECTOR])
    assert refused.value.code == 101

    client.load_collection(name)
    client.load_collection(name)
    client.refresh_load(name)
    assert client.get_load_state(name)["state"] == LoadState.Loaded
    assert client.get_load_state("nowhere")["state"] == LoadState.NotExist
    assert _count(client, name) == 10


def test_indexes(client: MilvusClient, name: str) -> None:
    """An index is made, described with its parameters, refused twice differently, dropped and replaced."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(100)))
    client.flush(name)
    client.release_collection(name)
    client.drop_index(name, "vector")
    assert client.list_indexes(name) == []
    assert client.describe_index(name, "vector") is None
    params = client.prepare_index_params()
    params.add_index(
        "vector", index_name="by_vector", index_type="HNSW", metric_type="IP", params={"M": 8, "efConstruction": 64}
    )

    client.create_index(name, params)
    client.create_index(name, params)

    assert client.list_indexes(name) == ["by_vector"]
    described = client.describe_index(name, "by_vector")
    assert (described["index_type"], described["metric_type"], described["field_name"]) == ("HNSW", "IP", "vector")
    assert (int(described["M"]), int(described["efConstruction"])) == (8, 64)
    assert (described["total_rows"], described["indexed_rows"], described["pending_index_rows"]) == (100, 100, 0)
    assert described["state"] == "Finished"
    other = client.prepare_index_params()
    other.add_index("vector", index_name="by_vector", index_type="FLAT", metric_type="IP")
    with pytest.raises(MilvusException):
        client.create_index(name, other)
    client.load_collection(name)
    assert client.search(name, [VECTOR], limit=1, search_params={"params": {"ef": 64}})[0][0]["id"] == 99


def test_statistics_and_flush(client: MilvusClient, name: str) -> None:
    """After a flush the statistics count the rows and the segments are listed."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(250)))

    client.flush(name)

    assert client.get_collection_stats(name)["row_count"] == 250
    assert sum(segment.num_rows for segment in client.list_persistent_segments(name)) == 250


def test_delete_answers(client: MilvusClient, name: str) -> None:
    """A delete says how many keys it was given, whether or not they were there."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(10)))

    assert client.delete(name, ids=[1, 2, 3])["delete_count"] == 3
    assert client.delete(name, filter="id in [4, 5]")["delete_count"] == 2
    assert client.delete(name, filter="id > 100").get("delete_count", 0) == 0
    assert _count(client, name) == 5


def test_filter_templates(client: MilvusClient, name: str) -> None:
    """Values may be given apart from the filter."""
    make_collection(client, name, dim=4)
    client.insert(name, _rows(range(10)))

    rows = client.query(
        name,
        filter="id in {ids} and id > {least}",
        filter_params={"ids": [1, 5, 7], "least": 2},
        output_fields=["id"],
        consistency_level="Strong",
    )
    assert rows == [{"id": 5}, {"id": 7}]
    client.delete(name, filter="id < {n}", filter_params={"n": 4})
    assert _count(client, name) == 6


def test_two_vector_fields(client: MilvusClient, name: str) -> None:
    """Each of two vector fields is searched with its own index and metric."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("a", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("b", DataType.FLOAT_VECTOR, dim=3)
    indexes = client.prepare_index_params()
    indexes.add_index("a", index_type="FLAT", metric_type="L2")
    indexes.add_index("b", index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes)
    client.insert(name, [{"id": i, "a": [float(i), 0.0], "b": [0.0, 0.0, float(-i)]} for i in range(5)])

    for _ in range(2):
        by_a = client.search(name, [[4.0, 0.0]], anns_field="a", limit=1, consistency_level="Strong")[0][0]
        by_b = client.search(name, [[0.0, 0.0, 1.0]], anns_field="b", limit=1, consistency_level="Strong")[0][0]
        assert (by_a["id"], by_b["id"]) == (4, 0)
        client.flush(name)
    with pytest.raises(MilvusException):
        client.search(name, [[4.0, 0.0]], limit=1)


def test_versions(client: MilvusClient) -> None:
    """The server's version reads like Milvus'."""
    assert client.get_server_version().lstrip("v")[0].isdigit()
    assert client.get_server_version(detail=True)["version"]


def test_default_database(client: MilvusClient) -> None:
    """There is the database `default`, and another one is unknown."""
    assert "default" in client.list_databases()


async def test_async_client(server: Server) -> None:
    """AsyncMilvusClient creates, inserts, searches, queries, deletes and drops."""
    client = AsyncMilvusClient(server.uri, timeout=30.0)
    name = "from_async"
    try:
        await client.create_collection(name, dimension=4, metric_type="L2")
        await client.insert(name, _rows(range(20)))
        await client.flush(name)
        await client.delete(name, ids=[3])
        hits = (await client.search(name, [[3.0, 1.0, 0.0, 0.0]], limit=2, consistency_level="Strong"))[0]
        assert [hit["id"] for hit in hits] == [2, 4]
        rows = await client.query(name, filter="id < 5", output_fields=["id"], consistency_level="Strong")
        assert [row["id"] for row in rows] == [0, 1, 2, 4]
        assert await client.has_collection(name)
        with pytest.raises(MilvusException):
            await client.search("nowhere", [VECTOR])
    finally:
        await client.drop_collection(name)
        await client.close()


@pytest.fixture
def orm(server: Server) -> Iterator[str]:
    """A connection of the ORM; its alias."""
    from pymilvus import connections

    connections.connect("orm", uri=server.uri)
    yield "orm"
    connections.disconnect("orm")


@pytest.mark.filterwarnings("ignore")  # the ORM is deprecated in the client, and says so in many ways
def test_orm(orm: str) -> None:
    """The older ORM's Collection does the same: its check of the described schema passes, rows go in and come back."""
    from pymilvus import Collection, CollectionSchema, FieldSchema, utility

    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True, description="key"),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=4),
        FieldSchema("kind", DataType.VARCHAR, max_length=20),
    ]
    schema = CollectionSchema(fields, description="made by the ORM")
    collection = Collection("from_orm", schema, using=orm, consistency_level="Strong")
    assert Collection("from_orm", schema, using=orm).name == "from_orm"
    collection.create_index("vector", {"index_type": "FLAT", "metric_type": "L2", "params": {}})
    collection.load()

    collection.insert([[1, 2, 3], [[float(i), 0.0, 0.0, 0.0] for i in (1, 2, 3)], ["a", "b", "c"]])
    collection.flush()
    assert collection.num_entities == 3
    hits = collection.search([[2.0, 0.0, 0.0, 0.0]], "vector", {"metric_type": "L2"}, limit=2, output_fields=["kind"])
    assert (hits[0].ids[0], hits[0].distances[0], hits[0][0].entity.get("kind")) == (2, 0.0, "b")
    collection.delete("id in [2]")
    assert [row["id"] for row in collection.query("id > 0", output_fields=["id"])] == [1, 3]
    assert utility.has_collection("from_orm", using=orm)
    collection.release()
    collection.drop()
    assert not utility.has_collection("from_orm", using=orm)
