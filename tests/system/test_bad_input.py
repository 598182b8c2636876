"""Wrong requests are refused at once, with Milvus' code and a message that names fact, value and limit, and change
nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from making import make_collection
from pymilvus import AnnSearchRequest, DataType, MilvusClient, MilvusException, RRFRanker
from servers import Server

pytestmark = pytest.mark.process

NAME = "bad_input"
UNLOADED = "bad_input_unloaded"
PATIENCE_S = 5.0
VECTOR = [1.0, 0.0, 0.0, 0.0]

INVALID = (1100, 65535)  # newer and older servers say it differently
NOT_FOUND, NOT_LOADED, NO_PARTITION, NO_INDEX, NO_ALIAS = 100, 101, 200, 700, 1600
UNSUPPORTED = (10, 3000, 1100)


@dataclass(frozen=True)
class Case:
    """A call, what its message must match, and its code (of the server, or 1 where pymilvus itself refuses)."""

    call: Callable[[MilvusClient], Any]
    message: str
    codes: int | tuple[int, ...] = INVALID


def _row(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "vector": VECTOR, "number": 1, "kind": "a", "doc": {}} | changes


def _insert(**changes: Any) -> Callable[[MilvusClient], Any]:
    return lambda c: c.insert(NAME, [_row(id=1000), _row(**changes)])


def _search(**arguments: Any) -> Callable[[MilvusClient], Any]:
    return lambda c: c.search(NAME, **({"data": [VECTOR], "limit": 3} | arguments))


def _query(expression: str, **arguments: Any) -> Callable[[MilvusClient], Any]:
    return lambda c: c.query(NAME, filter=expression, **arguments)


def _index(field: str = "vector", name: str = "", **arguments: Any) -> Callable[[MilvusClient], Any]:
    def create(client: MilvusClient) -> None:
        params = client.prepare_index_params()
        params.add_index(field, index_name=name, **arguments)
        client.create_index(UNLOADED, params)

    return create


def _create(name: str = "other", dim: int = 4, field: str = "vector") -> Callable[[MilvusClient], Any]:
    def create(client: MilvusClient) -> None:
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(field, DataType.FLOAT_VECTOR, dim=dim)
        client.create_collection(name, schema=schema)

    return create


def _hybrid(client: MilvusClient) -> Any:
    request = AnnSearchRequest([VECTOR], "vector", {}, limit=3)
    return client.hybrid_search(NAME, [request, request], RRFRanker(), limit=3)


WRITES = {
    "wrong dimension": Case(_insert(vector=[1.0, 2.0]), r"dim", (*INVALID, 1)),
    "missing field": Case(lambda c: c.insert(NAME, [{"id": 1, "vector": VECTOR}]), r"number|field", (*INVALID, 1)),
    "wrong type": Case(_insert(number="seven"), r"number|type", (*INVALID, 1)),
    "unknown field": Case(_insert(surprise=1), r"surprise", (*INVALID, 1)),
    "text too long": Case(_insert(kind="x" * 21), r"kind.*2[01].*20|kind.*20.*21"),
    "text too long in bytes": Case(_insert(kind="ü" * 11), r"kind.*22.*20|kind.*20.*22"),
    "not a number": Case(_insert(vector=[float("nan"), 0.0, 0.0, 0.0]), r"(?i)nan|not a number|finite"),
    "infinite": Case(_insert(vector=[float("inf"), 0.0, 0.0, 0.0]), r"(?i)inf"),
    "unknown partition": Case(lambda c: c.insert(NAME, [_row()], partition_name="nowhere"), r"nowhere", NO_PARTITION),
    "insert into no collection": Case(lambda c: c.insert("nowhere", [_row()]), r"nowhere", NOT_FOUND),
    "delete by a bad filter": Case(lambda c: c.delete(NAME, filter="number = 1"), r"number = 1"),
    "delete without a filter": Case(lambda c: c.delete(NAME, filter=""), r"(?i)empty|filter|expr", (*INVALID, 1)),
    "delete in no partition": Case(
        lambda c: c.delete(NAME, ids=[1], partition_name="nowhere"), "nowhere", NO_PARTITION
    ),
}

FILTERS = {
    "unknown field": Case(_query("surprise == 1"), r"surprise"),
    "syntax": Case(_query("number =="), r"number =="),
    "unbalanced": Case(_query("(number == 1"), r"\(number == 1"),
    "not without parentheses": Case(_query("not number == 1"), r"not"),
    "text against number": Case(_query('number == "one"'), r"number|(?i:int64)"),
    "like on a number": Case(_query('number like "1%"'), r"(?i)like"),
    "list of mixed types": Case(_query('number in [1, "two"]'), r"two|in"),
    "a vector": Case(_query("vector == 1"), r"vector"),
    "template without a value": Case(_query("number == {n}"), r"n"),
    "in a search": Case(_search(filter="surprise == 1"), r"surprise"),
    "without a limit": Case(_query(""), r"empty expression should be used with limit"),
}

SEARCHES = {
    "wrong dimension": Case(_search(data=[[1.0, 0.0]]), r"(?i)dim.*2.*4|dim.*4.*2|vector"),
    "no number": Case(_search(data=[[float("nan"), 0.0, 0.0, 0.0]]), r"(?i)nan|not a number|finite"),
    "k is zero": Case(_search(limit=0), r"0", (*INVALID, 1)),
    "k too large": Case(_search(limit=16385), r"16385.*16384|16384.*16385"),
    "offset too large": Case(_search(search_params={"offset": 16384}), r"16384"),
    "negative offset": Case(_search(search_params={"offset": -1}), r"-1|offset", (*INVALID, 1)),
    "wrong metric": Case(_search(search_params={"metric_type": "IP"}), r"L2.*IP|IP.*L2"),
    "unknown metric": Case(_search(search_params={"metric_type": "NEAR"}), r"NEAR"),
    "unknown field": Case(_search(anns_field="surprise"), r"surprise", (*INVALID, 1700)),
    "not a vector field": Case(_search(anns_field="number"), r"number"),
    "unknown output field": Case(_search(output_fields=["surprise"]), r"surprise", (*INVALID, 1700)),
    "unknown partition": Case(_search(partition_names=["nowhere"]), r"nowhere", NO_PARTITION),
    "no collection": Case(lambda c: c.search("nowhere", [VECTOR]), r"nowhere", NOT_FOUND),
    "not loaded": Case(lambda c: c.search(UNLOADED, [VECTOR]), r"(?i)not loaded", NOT_LOADED),
    "query not loaded": Case(lambda c: c.query(UNLOADED, filter="id == 1"), r"(?i)not loaded", NOT_LOADED),
    "range upside down": Case(_search(search_params={"params": {"radius": 1.0, "range_filter": 2.0}}), r"range|radius"),
    "radius is a text": Case(_search(search_params={"params": {"radius": "far"}}), r"radius|far"),
}

DEFINITIONS = {
    "bad name": Case(_create("1-x"), r"(?i)invalid collection name: 1-x"),
    "long name": Case(_create("x" * 256), r"255"),
    "bad field name": Case(_create(field="a b"), r"a b", (*INVALID, 1701)),
    "dimension zero": Case(_create(dim=0), r"(?i)dim", (*INVALID, 1)),
    "dimension too large": Case(_create(dim=32769), r"32769.*32768|32768.*32769"),
    "other schema, same name": Case(_create(NAME), r"(?i)duplicate collection"),
    "bad partition name": Case(lambda c: c.create_partition(NAME, "a b"), r"a b"),
    "default partition": Case(lambda c: c.drop_partition(NAME, "_default"), r"_default"),
    "loaded partition": Case(lambda c: c.drop_partition(NAME, "spare"), r"(?i)release|loaded"),
    "describe nothing": Case(lambda c: c.describe_collection("nowhere"), r"nowhere", NOT_FOUND),
    "load nothing": Case(lambda c: c.load_collection("nowhere"), r"nowhere", NOT_FOUND),
    "load without an index": Case(lambda c: c.load_collection(UNLOADED), r"(?i)index", NO_INDEX),
    "alias of nothing": Case(lambda c: c.create_alias("nowhere", "nick"), r"nowhere", NOT_FOUND),
    "alias named as a collection": Case(lambda c: c.create_alias(NAME, UNLOADED), UNLOADED, (1601, 65535)),
    "unknown alias": Case(lambda c: c.describe_alias("nobody"), r"nobody", NO_ALIAS),
    "alter an unknown alias": Case(lambda c: c.alter_alias(NAME, "nobody"), r"nobody", NO_ALIAS),
    "rename to a name in use": Case(lambda c: c.rename_collection(UNLOADED, NAME), NAME, (*INVALID, 1601)),
    "rename nothing": Case(lambda c: c.rename_collection("nowhere", "somewhere"), r"nowhere", NOT_FOUND),
}

INDEXES = {
    "unknown type": Case(_index(index_type="MAGIC", metric_type="L2"), r"MAGIC", (*INVALID, 701)),
    "unknown metric": Case(_index(index_type="FLAT", metric_type="NEAR"), r"NEAR"),
    "parameter too large": Case(_index(index_type="HNSW", metric_type="L2", params={"M": 5000}), r"M.*5000.*2048"),
    "parameter is a text": Case(_index(index_type="IVF_FLAT", metric_type="L2", params={"nlist": "many"}), r"nlist"),
    "unknown field": Case(_index("surprise", index_type="FLAT", metric_type="L2"), r"surprise", (*INVALID, 1700)),
    "drop while loaded": Case(lambda c: c.drop_index(NAME, "vector"), r"(?i)load", (*INVALID, 104)),
}

LATER = {
    "hybrid search": Case(_hybrid, "", UNSUPPORTED),
    "group by": Case(_search(group_by_field="kind"), "(?i)group", UNSUPPORTED),
    "add a field": Case(lambda c: c.add_collection_field(NAME, "more", DataType.INT64, nullable=True), "", UNSUPPORTED),
    "users": Case(lambda c: c.create_user("someone", "Password1!"), "", UNSUPPORTED),
    "array field": Case(lambda c: _create_array(c), r"(?i)array", (*UNSUPPORTED, 65535)),
}


def _create_array(client: MilvusClient) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("list", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("other", schema=schema)


@pytest.fixture(scope="module")
def collections(server: Server, client: MilvusClient) -> Iterator[MilvusClient]:
    """A loaded collection with two rows, and an empty one that has no index."""
    fields: dict[str, dict[str, Any]] = {
        "number": {"datatype": DataType.INT64},
        "kind": {"datatype": DataType.VARCHAR, "max_length": 20},
        "doc": {"datatype": DataType.JSON},
    }
    make_collection(client, NAME, dim=4, fields=fields)
    client.create_partition(NAME, "spare")
    client.load_collection(NAME)
    client.insert(NAME, [_row(id=10), _row(id=11)])
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection(UNLOADED, schema=schema)
    yield client
    client.drop_collection(NAME)
    client.drop_collection(UNLOADED)


def _state(client: MilvusClient) -> Any:
    return (
        sorted(client.list_collections()),
        sorted(client.list_partitions(NAME)),
        client.list_indexes(UNLOADED),
        client.query(NAME, filter="id >= 0", consistency_level="Strong"),
    )


ALL = {
    f"{group}: {what}": case
    for group, cases in (
        ("write", WRITES),
        ("filter", FILTERS),
        ("search", SEARCHES),
        ("definition", DEFINITIONS),
        ("index", INDEXES),
        ("later", LATER),
    )
    for what, case in cases.items()
}


@pytest.mark.parametrize("what", list(ALL))
def test_refused(collections: MilvusClient, what: str) -> None:
    """The call raises MilvusException with the right code and message, at once, and nothing has changed."""
    case = ALL[what]
    before = _state(collections)

    began = time.monotonic()
    with pytest.raises(MilvusException) as refused:
        case.call(collections)
    took_s = time.monotonic() - began

    codes = case.codes if isinstance(case.codes, tuple) else (case.codes,)
    assert refused.value.code in codes, str(refused.value)
    assert re.search(case.message, refused.value.message), refused.value.message
    assert took_s < PATIENCE_S
    assert _state(collections) == before


def test_requests_after_a_drop(client: MilvusClient, server: Server) -> None:
    """A collection that another client dropped is unknown at once, and may be made anew with another schema."""
    make_collection(client, "dropped", dim=4)
    client.insert("dropped", [{"id": 1, "vector": VECTOR}])
    other = server.client(server.other_uri, timeout=30.0)

    other.drop_collection("dropped")
    for call in (
        lambda: client.search("dropped", [VECTOR]),
        lambda: client.query("dropped", filter="id == 1"),
        lambda: client.insert("dropped", [{"id": 1, "vector": VECTOR}]),
        lambda: client.flush("dropped"),
    ):
        with pytest.raises(MilvusException) as refused:
            call()
        assert refused.value.code == NOT_FOUND

    make_collection(other, "dropped", dim=2)
    assert client.query("dropped", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"] == 0
    with pytest.raises(MilvusException):
        client.insert("dropped", [{"id": 1, "vector": VECTOR}])
    client.insert("dropped", [{"id": 1, "vector": [1.0, 2.0]}])
    other.close()
    client.drop_collection("dropped")
