"""Every type of value is stored and comes back as it was, fresh and from segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from making import make_collection
from pymilvus import DataType, MilvusClient

pytestmark = pytest.mark.process

FIELDS: dict[str, dict[str, Any]] = {
    "flag": {"datatype": DataType.BOOL},
    "i8": {"datatype": DataType.INT8},
    "i16": {"datatype": DataType.INT16},
    "i32": {"datatype": DataType.INT32},
    "i64": {"datatype": DataType.INT64},
    "f32": {"datatype": DataType.FLOAT},
    "f64": {"datatype": DataType.DOUBLE},
    "text": {"datatype": DataType.VARCHAR, "max_length": 100},
    "doc": {"datatype": DataType.JSON},
}

ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "vector": [0.5, -1.25],
        "flag": True,
        "i8": -128,
        "i16": -(2**15),
        "i32": -(2**31),
        "i64": -(2**63) + 1,
        "f32": 1.5,
        "f64": 0.1,
        "text": "",
        "doc": {},
    },
    {
        "id": -7,
        "vector": [3.0, 4.0],
        "flag": False,
        "i8": 127,
        "i16": 2**15 - 1,
        "i32": 2**31 - 1,
        "i64": 2**63 - 1,
        "f32": float(np.float32(-3.25e20)),
        "f64": -1.7976931348623157e308,
        "text": "Grüße, 日本語 🎉 \"quoted\" and 'single'\n",
        "doc": {"a": [1, 2.5, None, {"b": "ü"}], "big": 2**53 + 1, "t": True},
    },
    {
        "id": 2**62,
        "vector": [0.0, 0.0],
        "flag": True,
        "i8": 0,
        "i16": 0,
        "i32": 0,
        "i64": 0,
        "f32": 0.0,
        "f64": 5e-324,
        "text": "x" * 100,
        "doc": [1, "two", 3.0],
    },
]


@pytest.fixture(params=["fresh", "flushed"])
def flushed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "flushed")


def test_every_type_comes_back(client: MilvusClient, name: str, flushed: bool) -> None:
    """What was inserted is what `get`, `query` and `search` return, at the extremes of each type."""
    make_collection(client, name, dim=2, fields=FIELDS)
    client.insert(name, ROWS)
    if flushed:
        client.flush(name)

    by_key = sorted(ROWS, key=lambda row: row["id"])
    assert list(client.get(name, ids=[row["id"] for row in ROWS], consistency_level="Strong")) == by_key
    assert list(client.query(name, filter="id > -100", consistency_level="Strong")) == by_key
    hits = client.search(name, [[0.5, -1.25]], limit=3, output_fields=["*"], consistency_level="Strong")[0]
    assert [hit["id"] for hit in hits] == [1, 2**62, -7]
    for hit in hits:
        expected = next(row for row in ROWS if row["id"] == hit["id"])
        assert {field: hit["entity"][field] for field in expected if field != "id"} == {
            field: value for field, value in expected.items() if field != "id"
        }


def test_output_fields(client: MilvusClient, name: str, flushed: bool) -> None:
    """Only the fields asked for come back, the primary key always; without any, a search returns keys and scores."""
    make_collection(client, name, dim=2, fields=FIELDS)
    client.insert(name, ROWS)
    if flushed:
        client.flush(name)

    row = client.query(name, filter="id == 1", output_fields=["text", "i8"], consistency_level="Strong")[0]
    assert row == {"id": 1, "text": "", "i8": -128}
    hit = client.search(name, [[3.0, 4.0]], limit=1, consistency_level="Strong")[0][0]
    assert (hit["id"], hit["distance"], dict(hit["entity"])) == (-7, 0.0, {})
    hit = client.search(name, [[3.0, 4.0]], limit=1, output_fields=["vector", "f32"], consistency_level="Strong")[0][0]
    assert hit["entity"]["vector"] == [3.0, 4.0]
    assert hit["entity"]["f32"] == np.float32(float(np.float32(-3.25e20)))


def test_count(client: MilvusClient, name: str) -> None:
    """`count(*)` counts live rows, with and without a filter."""
    make_collection(client, name, dim=2, fields={"n": {"datatype": DataType.INT64}})

    def count(expression: str = "") -> int:
        answer = client.query(name, filter=expression, output_fields=["count(*)"], consistency_level="Strong")
        return int(answer[0]["count(*)"])

    assert count() == 0
    client.insert(name, [{"id": i, "vector": [1.0, 1.0], "n": i % 4} for i in range(200)])
    assert (count(), count("n == 1")) == (200, 50)
    client.flush(name)
    client.delete(name, ids=[1, 2, 3, 1000])
    client.upsert(name, [{"id": 5, "vector": [1.0, 1.0], "n": 0}])
    assert (count(), count("n == 1"), count("n > 100")) == (197, 48, 0)


def test_nullable_and_defaults(client: MilvusClient, name: str, flushed: bool) -> None:
    """A nullable field without a value comes back as None, a field with a default as that default."""
    fields: dict[str, dict[str, Any]] = {
        "maybe": {"datatype": DataType.INT64, "nullable": True},
        "maybe_text": {"datatype": DataType.VARCHAR, "max_length": 10, "nullable": True},
        "maybe_doc": {"datatype": DataType.JSON, "nullable": True},
        "seven": {"datatype": DataType.INT32, "default_value": 7},
        "hello": {"datatype": DataType.VARCHAR, "max_length": 10, "default_value": "hello"},
        "half": {"datatype": DataType.DOUBLE, "default_value": 0.5, "nullable": True},
    }
    make_collection(client, name, dim=2, fields=fields)
    vector = [1.0, 2.0]
    client.insert(name, [{"id": 1, "vector": vector}])
    client.insert(
        name,
        [
            {"id": 2, "vector": vector, "maybe": 5, "maybe_text": None, "maybe_doc": {"a": None}, "seven": 8},
            {"id": 3, "vector": vector, "maybe": None, "maybe_text": "", "hello": "bye", "seven": None, "half": 2.0},
        ],
    )
    if flushed:
        client.flush(name)

    rows = client.query(name, filter="id > 0", output_fields=list(fields), consistency_level="Strong")

    empty = {"maybe": None, "maybe_text": None, "maybe_doc": None, "seven": 7, "hello": "hello", "half": 0.5}
    assert list(rows) == [
        {"id": 1} | empty,
        {"id": 2} | empty | {"maybe": 5, "maybe_doc": {"a": None}, "seven": 8},
        {"id": 3} | empty | {"maybe_text": "", "hello": "bye", "half": 2.0},
    ]
    hits = client.search(name, [vector], limit=3, output_fields=["maybe"], consistency_level="Strong")[0]
    assert [hit["entity"]["maybe"] for hit in hits] == [None, 5, None]


def test_dynamic_fields(client: MilvusClient, name: str, flushed: bool) -> None:
    """Keys that are not in the schema are stored, filtered, and returned by name or by `*`."""
    make_collection(client, name, dim=2, dynamic=True)
    vector = [1.0, 2.0]
    rows: list[dict[str, Any]] = [
        {"id": 1, "vector": vector, "colour": "red", "size": 3},
        {"id": 2, "vector": vector, "colour": "blue", "inner": {"a": [1, 2]}},
        {"id": 3, "vector": vector},
    ]
    client.insert(name, rows)
    if flushed:
        client.flush(name)

    assert list(client.query(name, filter="id > 0", consistency_level="Strong")) == rows
    found = client.query(name, filter='colour == "red"', output_fields=["colour"], consistency_level="Strong")
    assert list(found) == [{"id": 1, "colour": "red"}]
    found = client.query(name, filter='inner["a"][1] == 2', output_fields=["inner"], consistency_level="Strong")
    assert list(found) == [{"id": 2, "inner": {"a": [1, 2]}}]
    hits = client.search(name, [vector], limit=3, output_fields=["colour", "size"], consistency_level="Strong")[0]
    assert [dict(hit["entity"]) for hit in hits] == [{"colour": "red", "size": 3}, {"colour": "blue"}, {}]


@pytest.mark.parametrize("key", [DataType.INT64, DataType.VARCHAR])
def test_generated_keys(client: MilvusClient, name: str, key: DataType) -> None:
    """With auto_id the server makes distinct keys, returns them in the order of the rows, and finds rows by them."""
    make_collection(client, name, dim=2, key=key, auto_id=True, fields={"n": {"datatype": DataType.INT64}})

    ids = []
    for start in (0, 100, 200):
        answer = client.insert(name, [{"vector": [1.0, float(i)], "n": i} for i in range(start, start + 100)])
        ids += list(answer["ids"])

    assert len(set(ids)) == 300
    assert all(isinstance(made, int if key is DataType.INT64 else str) for made in ids)
    for position in (0, 150, 299):
        row = client.get(name, ids=[ids[position]], output_fields=["n"], consistency_level="Strong")[0]
        assert (row["id"], row["n"]) == (ids[position], position)
    client.delete(name, ids=ids[:10])
    client.flush(name)
    counted = client.query(name, output_fields=["count(*)"], consistency_level="Strong")
    assert counted[0]["count(*)"] == 290


def test_text_keys(client: MilvusClient, name: str, flushed: bool) -> None:
    """VARCHAR primary keys are inserted, replaced, deleted and found by their exact text."""
    make_collection(client, name, dim=2, key=DataType.VARCHAR, fields={"n": {"datatype": DataType.INT64}})
    keys = ["a", "A", "it's", 'say "hi"', "日本", "a b"]
    client.insert(name, [{"id": key, "vector": [1.0, 0.0], "n": i} for i, key in enumerate(keys)])
    client.upsert(name, [{"id": "A", "vector": [0.0, 1.0], "n": 10}])
    if flushed:
        client.flush(name)

    assert list(client.get(name, ids=["A"], output_fields=["n"], consistency_level="Strong")) == [{"id": "A", "n": 10}]
    client.delete(name, filter=r"""id in ["it's", "say \"hi\"", "nobody"]""")  # the client does not escape ids
    client.delete(name, filter='id == "日本"')
    rows = client.query(name, filter="n >= 0", output_fields=["n"], consistency_level="Strong")
    assert [row["id"] for row in rows] == ["A", "a", "a b"]


def test_query_limit_and_offset(client: MilvusClient, name: str) -> None:
    """A query without a filter needs a limit; pages come in primary key order, over fresh rows and segments."""
    make_collection(client, name, dim=2)
    client.insert(name, [{"id": i, "vector": [0.0, 0.0]} for i in range(0, 100, 2)])
    client.flush(name)
    client.insert(name, [{"id": i, "vector": [0.0, 0.0]} for i in range(1, 100, 2)])

    def page(**arguments: Any) -> list[int]:
        rows = client.query(name, output_fields=["id"], consistency_level="Strong", **arguments)
        return [row["id"] for row in rows]

    assert page(limit=7) == list(range(7))
    assert page(limit=7, offset=90) == list(range(90, 97))
    assert page(limit=20, offset=95) == list(range(95, 100))
    assert page(filter="id >= 10", limit=3, offset=3) == [13, 14, 15]
    assert page(filter="id >= 97") == [97, 98, 99]
