"""Collections, partitions, aliases and indexes as a real client defines and sees them."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import numpy as np
import pytest
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, MilvusClient, MilvusException, connections
from served import Served

from mishards.wire import definitions


def rich_schema() -> CollectionSchema:
    """Every stored type, with nulls, defaults, descriptions and a dynamic field."""
    return CollectionSchema(
        [
            FieldSchema("id", DataType.INT64, is_primary=True, description="the key"),
            FieldSchema("vec", DataType.FLOAT_VECTOR, dim=4, mmap_enabled=True),
            FieldSchema("b", DataType.BOOL, default_value=True),
            FieldSchema("i8", DataType.INT8, nullable=True, default_value=np.int8(-3)),
            FieldSchema("i64", DataType.INT64, default_value=1 << 40),
            FieldSchema("f", DataType.FLOAT, default_value=0.5),
            FieldSchema("d", DataType.DOUBLE, nullable=True),
            FieldSchema("t", DataType.VARCHAR, max_length=10, nullable=True, default_value="é"),
            FieldSchema("j", DataType.JSON, nullable=True),
        ],
        description="all there is",
        enable_dynamic_field=True,
    )


async def test_a_described_collection_is_the_one_declared(served: Served) -> None:
    """Every property of the schema survives: the client's description names what was declared, `$meta` stays hidden."""
    await served.run(
        lambda c: c.create_collection(
            "a", schema=rich_schema(), consistency_level="Strong", num_shards=3, properties={"mine": "1"}
        )
    )

    told = await served.run(lambda c: c.describe_collection("a"))

    assert [field["name"] for field in told["fields"]] == ["id", "vec", "b", "i8", "i64", "f", "d", "t", "j"]
    assert told["fields"][0]["field_id"] == 100
    assert told["fields"][1]["params"] == {"dim": 4, "mmap_enabled": True}
    assert told["fields"][7]["params"] == {"max_length": 10}
    assert told["enable_dynamic_field"]
    assert told["consistency_level_name"] == "Strong"
    assert told["num_shards"] == 3
    assert told["num_partitions"] == 1
    assert told["properties"] == {"mine": "1"}
    assert told["update_timestamp"] == served.proxy.known["a"].updated_ts
    assert await served.run(lambda c: c.has_collection("a"))
    assert await served.run(lambda c: c.list_collections()) == ["a"]


async def test_the_orm_finds_its_own_schema_again(served: Served) -> None:
    """`Collection(name, schema)` on an existing collection compares the schemas and finds them the same."""

    def twice(_: Any) -> str:
        connections.connect("orm", uri=served.uri)
        try:
            Collection("a", rich_schema(), using="orm", consistency_level="Session")
            return str(Collection("a", rich_schema(), using="orm", consistency_level="Session").name)
        finally:
            connections.disconnect("orm")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the ORM calls itself deprecated
        assert await served.run(twice) == "a"


async def test_a_missing_collection_is_no_error_to_has_and_one_to_describe(served: Served) -> None:
    """has_collection answers False, describe_collection raises code 100, drop succeeds only as the proxy says."""
    assert await served.run(lambda c: c.has_collection("nope")) is False

    with pytest.raises(MilvusException, match=r"collection not found\[database=default\]\[collection=nope\]") as caught:
        await served.run(lambda c: c.describe_collection("nope"))
    assert caught.value.code == 100


async def test_creating_again_needs_the_same_schema(served: Served) -> None:
    """The same definition again succeeds, another one under the name is refused with code 65535."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))

    with pytest.raises(MilvusException, match="create duplicate collection with different parameters") as caught:
        await served.run(lambda c: c._get_connection().create_collection("a", rich_schema_without_t()))
    assert caught.value.code == 65535


def rich_schema_without_t() -> CollectionSchema:
    return CollectionSchema([field for field in rich_schema().fields if field.name != "t"])


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"dtype": DataType.SPARSE_FLOAT_VECTOR}, "data type SparseFloatVector of field x is not supported"),
        ({"dtype": DataType.ARRAY, "element_type": DataType.INT64, "max_capacity": 3}, "data type Array"),
        ({"dtype": DataType.VARCHAR, "max_length": 9, "is_partition_key": True}, "partition key is not supported"),
        ({"dtype": DataType.VARCHAR, "max_length": 9, "enable_analyzer": True}, "full-text search"),
    ],
)
async def test_unserved_schemas_are_refused_by_name(served: Served, field: dict[str, Any], words: str) -> None:
    """What cannot be stored is a MilvusException with code 3000 that names it."""
    schema = CollectionSchema([*rich_schema().fields[:2], FieldSchema("x", **field)])

    with pytest.raises(MilvusException, match=words) as caught:
        await served.run(lambda c: c.create_collection("a", schema=schema))

    assert caught.value.code == 3000
    assert caught.value.is_input_error


async def test_promises_that_cannot_be_kept_are_refused(served: Served) -> None:
    """A property that would change answers is refused; unknown ones are stored and described."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))

    with pytest.raises(MilvusException, match=r"property ttl_field is not supported"):
        await served.run(lambda c: c.alter_collection_properties("a", {"ttl_field": "x"}))
    await served.run(lambda c: c.alter_collection_properties("a", {"x": 1, "y": 2}))
    await served.run(lambda c: c.drop_collection_properties("a", ["y"]))

    assert (await served.run(lambda c: c.describe_collection("a")))["properties"] == {"x": "1"}


async def test_time_to_live(served: Served) -> None:
    """The time to live of rows is set at creation or later, described, and refused outside of Milvus' range."""
    ttl = "collection.ttl.seconds"
    await served.run(lambda c: c.create_collection("a", schema=rich_schema(), properties={ttl: 60}))
    assert (await served.run(lambda c: c.describe_collection("a")))["properties"] == {ttl: "60"}

    with pytest.raises(MilvusException, match=r"TTL is out of range, expect \[-1, 3155760000\], got -2"):
        await served.run(lambda c: c.alter_collection_properties("a", {ttl: -2}))
    await served.run(lambda c: c.alter_collection_properties("a", {ttl: 90}))

    assert (await served.run(lambda c: c.describe_collection("a")))["properties"] == {ttl: "90"}


async def test_bad_names_are_refused_in_milvus_words(served: Served) -> None:
    """The server checks names itself, whatever the client lets pass."""
    with pytest.raises(MilvusException, match=r"Invalid collection name: 1-x\. the first character") as caught:
        await served.run(lambda c: c._get_connection().create_collection("1-x", rich_schema()))

    assert caught.value.code == 1100


async def test_the_quick_set_up_creates_indexes_and_loads(served: Served) -> None:
    """create_collection(name, dimension) makes an AUTOINDEX and waits until it is built and loaded."""
    await served.run(lambda c: c.create_collection("a", 4, metric_type="IP", auto_id=True))

    assert await served.run(lambda c: c.list_indexes("a")) == ["vector"]
    index = await served.run(lambda c: c.describe_index("a", "vector"))
    assert index["index_type"] == "AUTOINDEX"
    assert index["metric_type"] == "IP"
    assert index["state"] == "Finished"
    assert str((await served.run(lambda c: c.get_load_state("a")))["state"]) == "Loaded"
    await served.run(lambda c: c.release_collection("a"))
    assert str((await served.run(lambda c: c.get_load_state("a")))["state"]) == "NotLoad"


async def test_index_parameters_arrive_and_come_back(served: Served) -> None:
    """Flat and nested parameters reach the proxy, and describe_index shows what was sent."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))
    params = MilvusClient.prepare_index_params()
    params.add_index("vec", index_type="hnsw", metric_type="cosine", params={"M": 16, "efConstruction": 99})

    await served.run(lambda c: c._get_connection().create_index("a", "vec", dict(PARAMS), sync=False))

    wanted = served.last(definitions.CreateIndex)
    assert (wanted.type, wanted.metric, wanted.name) == ("HNSW", "COSINE", "vec")
    assert wanted.params == {"M": 16, "efConstruction": "99"}
    index = await served.run(lambda c: c.describe_index("a", "vec"))
    assert index["params"] == {"M": 16}
    assert index["index_type"] == "HNSW"


PARAMS = {"index_type": "hnsw", "metric_type": "cosine", "params": {"M": 16}, "efConstruction": 99}


async def test_an_index_is_in_progress_while_rows_are_pending(served: Served) -> None:
    """The state is InProgress until no row is pending; a missing index is None and [] to the client."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))
    assert await served.run(lambda c: c.describe_index("a", "vec")) is None
    assert await served.run(lambda c: c.list_indexes("a")) == []
    await served.run(lambda c: c._get_connection().create_index("a", "vec", {}, sync=False, index_name="v"))

    served.proxy.pending = 5

    index = await served.run(lambda c: c.describe_index("a", "v"))
    assert (index["state"], index["pending_index_rows"]) == ("InProgress", 5)
    await served.run(lambda c: c.drop_index("a", "v"))
    assert await served.run(lambda c: c.list_indexes("a")) == []


async def test_scalar_indexes_are_passed_on_and_those_of_json_paths_refused(served: Served) -> None:
    """An index on a scalar field reaches the proxy; one on a path of a JSON field is refused."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))

    await served.run(lambda c: c._get_connection().create_index("a", "i64", {"index_type": "INVERTED"}, sync=False))
    assert served.last(definitions.CreateIndex).type == "INVERTED"

    path = {"index_type": "INVERTED", "json_path": 'j["k"]', "json_cast_type": "double"}
    with pytest.raises(MilvusException, match="path of JSON field j is not supported") as caught:
        await served.run(lambda c: c._get_connection().create_index("a", "j", path, sync=False))
    assert caught.value.code == 3000


async def test_partitions_and_aliases_are_defined_and_listed(served: Served) -> None:
    """Partitions and aliases go through their calls; names are checked."""
    await served.run(lambda c: c.create_collection("a", schema=rich_schema()))

    await served.run(lambda c: c.create_partition("a", "p"))
    await served.run(lambda c: c.create_alias("a", "other"))

    assert await served.run(lambda c: c.list_partitions("a")) == ["_default", "p"]
    assert await served.run(lambda c: c.has_partition("a", "p"))
    assert await served.run(lambda c: c.get_partition_stats("a", "p")) == {"row_count": 0}
    told = await served.run(lambda c: c.describe_alias("other"))
    assert told == {"alias": "other", "collection_name": "a", "db_name": "default"}
    assert (await served.run(lambda c: c.list_aliases("a")))["aliases"] == ["other"]
    assert (await served.run(lambda c: c.describe_collection("other")))["collection_name"] == "a"
    await served.run(lambda c: c.drop_alias("other"))
    await served.run(lambda c: c.drop_partition("a", "p"))
    await served.run(lambda c: c.rename_collection("a", "b"))
    await served.run(lambda c: c.load_partitions("b", ["_default"]))
    await served.run(lambda c: c.release_partitions("b", ["_default"]))
    assert await served.run(lambda c: c.list_collections()) == ["b"]
    with pytest.raises(MilvusException, match="alias not found") as caught:
        await served.run(lambda c: c.describe_alias("other"))
    assert caught.value.code == 1600


async def test_only_the_default_database_is_there(served: Served) -> None:
    """Another database is code 800 in every call; creating one is unimplemented."""
    assert await served.run(lambda c: c.list_databases()) == ["default"]
    assert (await served.run(lambda c: c.describe_database("default")))["name"] == "default"
    with pytest.raises(MilvusException, match=r"database not found\[database=zz\]") as caught:
        await asyncio.to_thread(lambda: MilvusClient(served.uri, db_name="zz", dedicated=True).list_collections())
    assert caught.value.code == 800
    with pytest.raises(MilvusException, match="service unimplemented: CreateDatabase") as caught:
        await served.run(lambda c: c.create_database("zz"))
    assert caught.value.code == 10
