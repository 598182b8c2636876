"""Requests that no client library would send are refused with a Status, never with a gRPC failure, which clients would
retry for minutes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from making import make_collection
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2
from servers import Server

pytestmark = pytest.mark.process

NAME = "raw_protocol"
VECTOR = [1.0, 0.0]


@pytest.fixture(scope="module")
def stub(server: Server, client: MilvusClient) -> Iterator[Any]:
    """The bare stub of the service, and a loaded collection of two fields."""
    make_collection(client, NAME, dim=2, fields={"number": {"datatype": DataType.INT8}})
    with grpc.insecure_channel(server.uri.removeprefix("http://")) as channel:
        yield milvus_pb2_grpc.MilvusServiceStub(channel)
    client.drop_collection(NAME)


def _column(name: str, kind: int, **values: Any) -> Any:
    column = schema_pb2.FieldData(field_name=name, type=kind)
    for what, data in values.items():
        if what == "vector":
            column.vectors.dim = 2
            column.vectors.float_vector.data.extend(data)
        else:
            getattr(column.scalars, what).data.extend(data)
    return column


def _key(values: list[int]) -> Any:
    return _column("id", DataType.INT64, long_data=values)


def _vector(values: list[float]) -> Any:
    return _column("vector", DataType.FLOAT_VECTOR, vector=values)


def _number(values: list[int]) -> Any:
    return _column("number", DataType.INT8, int_data=values)


INSERTS: dict[str, tuple[int, list[Any]]] = {
    "no columns": (1, []),
    "column missing": (1, [_key([1]), _vector(VECTOR)]),
    "column doubled": (1, [_key([1]), _key([1]), _vector(VECTOR), _number([1])]),
    "column unknown": (1, [_key([1]), _vector(VECTOR), _number([1]), _column("x", DataType.INT64, long_data=[1])]),
    "too few values": (2, [_key([1]), _vector(VECTOR), _number([1])]),
    "too few vector elements": (1, [_key([1]), _vector([1.0]), _number([1])]),
    "another type": (1, [_key([1]), _vector(VECTOR), _column("number", DataType.VARCHAR, string_data=["1"])]),
    "data of another type": (1, [_key([1]), _vector(VECTOR), _column("number", DataType.INT8, string_data=["1"])]),
    "out of range": (1, [_key([1]), _vector(VECTOR), _number([128])]),
    "more rows than said": (1, [_key([1, 2]), _vector(VECTOR * 2), _number([1, 2])]),
}


@pytest.mark.parametrize("what", list(INSERTS))
@pytest.mark.parametrize("call", ["Insert", "Upsert"])
def test_malformed_rows(stub: Any, client: MilvusClient, call: str, what: str) -> None:
    """Rows that do not fit the schema are refused as a whole."""
    rows, columns = INSERTS[what]
    request = {"Insert": milvus_pb2.InsertRequest, "Upsert": milvus_pb2.UpsertRequest}[call]
    timestamp = client.describe_collection(NAME)["update_timestamp"]

    reply = getattr(stub, call)(
        request(collection_name=NAME, num_rows=rows, fields_data=columns, schema_timestamp=timestamp), timeout=5
    )

    assert reply.status.code != 0
    assert reply.status.reason
    assert client.query(NAME, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"] == 0


def _search(placeholder: bytes, **changes: str) -> Any:
    parameters = {"anns_field": "vector", "topk": "3", "params": "{}"} | changes
    request = milvus_pb2.SearchRequest(
        collection_name=NAME, dsl_type=common_pb2.DslType.BoolExprV1, placeholder_group=placeholder, nq=1
    )
    for key, value in parameters.items():
        request.search_params.add(key=key, value=value)
    return request


def _placeholder(kind: int, *values: bytes) -> bytes:
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=kind, values=list(values))
    return bytes(group.SerializeToString())


EIGHT_BYTES = bytes(8)

REQUESTS: dict[str, Callable[[Any], Any]] = {
    "schema is garbage": lambda s: s.CreateCollection(
        milvus_pb2.CreateCollectionRequest(collection_name="other", schema=b"\xff\xfe\xfd"), timeout=5
    ),
    "schema is empty": lambda s: s.CreateCollection(
        milvus_pb2.CreateCollectionRequest(collection_name="other"), timeout=5
    ),
    "queries are garbage": lambda s: s.Search(_search(b"\xff\xfe\xfd"), timeout=5),
    "no queries": lambda s: s.Search(_search(b""), timeout=5),
    "queries of another type": lambda s: s.Search(
        _search(_placeholder(common_pb2.PlaceholderType.BinaryVector, EIGHT_BYTES)), timeout=5
    ),
    "half a vector": lambda s: s.Search(
        _search(_placeholder(common_pb2.PlaceholderType.FloatVector, EIGHT_BYTES[:5])), timeout=5
    ),
    "topk is a text": lambda s: s.Search(
        _search(_placeholder(common_pb2.PlaceholderType.FloatVector, EIGHT_BYTES), topk="many"), timeout=5
    ),
    "params are no JSON": lambda s: s.Search(
        _search(_placeholder(common_pb2.PlaceholderType.FloatVector, EIGHT_BYTES), params="{"), timeout=5
    ),
    "params are a list": lambda s: s.Search(
        _search(_placeholder(common_pb2.PlaceholderType.FloatVector, EIGHT_BYTES), params=json.dumps([1])), timeout=5
    ),
    "query limit is a text": lambda s: s.Query(
        milvus_pb2.QueryRequest(collection_name=NAME, query_params=[common_pb2.KeyValuePair(key="limit", value="all")]),
        timeout=5,
    ),
    "nothing said": lambda s: s.Search(milvus_pb2.SearchRequest(), timeout=5),
    "deep filter": lambda s: s.Query(
        milvus_pb2.QueryRequest(collection_name=NAME, expr="(" * 5000 + "id == 1"), timeout=5
    ),
}


@pytest.mark.parametrize("what", list(REQUESTS))
def test_malformed_requests(stub: Any, what: str) -> None:
    """A request that makes no sense is answered by a Status that says why."""
    reply = REQUESTS[what](stub)

    status = getattr(reply, "status", reply)
    assert status.code != 0
    assert status.reason
    assert "Traceback" not in status.reason
