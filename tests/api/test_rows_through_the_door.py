"""Rows, searches and queries as a real client writes and reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pymilvus import AnnSearchRequest, CollectionSchema, DataType, FieldSchema, MilvusException, RRFRanker
from served import Served

from mishards.errors import Kind, MishardsError
from mishards.model import Consistency
from mishards.proxy.requests import DeleteRequest, QueryRequest, RowsRequest, SearchRequest

DIM = 8
VECTORS = np.random.default_rng(1).standard_normal((5, DIM), np.float32)


def schema(auto_id: bool = False, key: DataType = DataType.INT64) -> CollectionSchema:
    return CollectionSchema(
        [
            FieldSchema("id", key, is_primary=True, auto_id=auto_id, max_length=64),
            FieldSchema("vec", DataType.FLOAT_VECTOR, dim=DIM),
            FieldSchema("b", DataType.BOOL, nullable=True),
            FieldSchema("i8", DataType.INT8, default_value=np.int8(-3)),
            FieldSchema("f", DataType.FLOAT, nullable=True),
            FieldSchema("d", DataType.DOUBLE, nullable=True),
            FieldSchema("t", DataType.VARCHAR, max_length=10, nullable=True),
            FieldSchema("j", DataType.JSON, nullable=True),
        ],
        enable_dynamic_field=True,
    )


FULL = {"id": 1, "vec": VECTORS[0], "b": True, "i8": 7, "f": 0.1, "d": 0.1, "t": "é", "j": {"k": [1]}, "color": "red"}
EMPTY = {"id": 2, "vec": VECTORS[1]}


async def fill(served: Served, rows: list[dict[str, Any]]) -> Any:
    await served.run(lambda c: c.create_collection("a", schema=schema()))
    return await served.run(lambda c: c.insert("a", rows))


async def test_every_value_comes_back_as_it_was_written(served: Served) -> None:
    """Vectors bit for bit, scalars, nulls, defaults, JSON and dynamic keys survive insert and query."""
    told = await fill(served, [EMPTY, FULL])

    one, two = await served.run(lambda c: c.query("a", limit=10))

    assert told["insert_count"] == 2
    assert list(told["ids"]) == [2, 1]
    assert np.array(one["vec"], np.float32).tobytes() == VECTORS[0].tobytes()
    assert np.array(two["vec"], np.float32).tobytes() == VECTORS[1].tobytes()
    del one["vec"], two["vec"]
    assert one == {**{k: v for k, v in FULL.items() if k != "vec"}, "f": np.float32(0.1).item()}
    assert two == {"id": 2, "b": None, "i8": -3, "f": None, "d": None, "t": None, "j": None}


async def test_get_takes_output_fields_and_dynamic_keys(served: Served) -> None:
    """A query shows the key, the fields asked for and the dynamic keys asked for, no others."""
    await fill(served, [FULL, EMPTY])

    rows = await served.run(lambda c: c.get("a", [1, 2], output_fields=["t", "color"]))

    assert [dict(row) for row in rows] == [{"id": 1, "t": "é", "color": "red"}, {"id": 2, "t": None}]
    with pytest.raises(MilvusException, match="subkeys of json"):
        await served.run(lambda c: c.get("a", [1], output_fields=["j['k']"]))


async def test_an_empty_query_is_an_empty_list_and_counts_are_counted(served: Served) -> None:
    """No row is [], count(*) is one number, and not of a page."""
    await fill(served, [FULL, EMPTY])

    assert list(await served.run(lambda c: c.query("a", "id in [99]"))) == []
    counted = await served.run(lambda c: c.query("a", output_fields=["count(*)"]))
    assert [dict(row) for row in counted] == [{"count(*)": 2}]
    assert served.last(QueryRequest).count
    with pytest.raises(MilvusException, match="count entities with pagination is not allowed"):
        await served.run(lambda c: c.query("a", output_fields=["count(*)"], limit=1))
    assert await served.run(lambda c: c.get_collection_stats("a")) == {"row_count": 2}


async def test_the_schema_cache_is_refreshed_when_it_is_stale(served: Served) -> None:
    """A write for an older definition is answered SchemaMismatch, on which the client asks again and succeeds."""
    await fill(served, [FULL])
    await served.run(lambda c: c.create_partition("a", "p"))

    await served.run(lambda c: c.insert("a", [EMPTY], partition_name="p"))

    request = served.last(RowsRequest)
    assert request.schema_ts == served.proxy.known["a"].updated_ts
    assert request.partition == "p"


async def test_upsert_replaces_and_delete_removes(served: Served) -> None:
    """Counts are told; delete answers with a count and not with keys; filters carry their variables."""
    await fill(served, [FULL, EMPTY])

    upserted = await served.run(lambda c: c.upsert("a", [{**EMPTY, "t": "new"}]))
    deleted = await served.run(lambda c: c.delete("a", ids=[1]))

    assert upserted["upsert_count"] == 1
    assert deleted["delete_count"] == 1
    (left,) = await served.run(lambda c: c.query("a", limit=5, output_fields=["t"]))
    assert dict(left) == {"id": 2, "t": "new"}
    template = {"n": 3, "names": ["x"], "ok": True, "r": 0.5, "mixed": [1, {"k": 2}]}
    await served.run(lambda c: c.delete("a", filter="id in {names}", filter_params=template))
    assert served.last(DeleteRequest).template == template


async def test_generated_keys_are_told(served: Served) -> None:
    """auto_id keys come back from insert, also as text for VARCHAR keys."""
    await served.run(lambda c: c.create_collection("a", schema=schema(auto_id=True)))
    told = await served.run(lambda c: c.insert("a", [{"vec": VECTORS[0]}, {"vec": VECTORS[1]}]))
    assert list(told["ids"]) == [500, 501]

    await served.run(lambda c: c.create_collection("b", schema=schema(key=DataType.VARCHAR)))
    told = await served.run(lambda c: c.insert("b", [{"id": "x", "vec": VECTORS[0]}]))
    assert list(told["ids"]) == ["x"]
    (hits,) = await served.run(lambda c: c.search("b", [VECTORS[0]], limit=1))
    assert hits[0]["id"] == "x"


async def test_searching_passes_the_vectors_and_gets_hits(served: Served) -> None:
    """Query vectors arrive bit for bit; hits carry key, distance and the fields asked for."""
    await fill(served, [{"id": n, "vec": VECTORS[n], "color": f"c{n}", "t": f"t{n}"} for n in range(5)])

    found = await served.run(
        lambda c: c.search("a", VECTORS[:2], limit=3, output_fields=["vec", "t", "color"], anns_field="vec")
    )

    request = served.last(SearchRequest)
    assert request.queries.tobytes() == VECTORS[:2].tobytes()
    assert request.field == "vec"
    assert [len(hits) for hits in found] == [3, 3]
    best = found[1][0]
    assert best["id"] == 1
    assert best["distance"] == 0
    assert np.array(best["entity"]["vec"], np.float32).tobytes() == VECTORS[1].tobytes()
    assert (best["entity"]["t"], best["entity"]["color"]) == ("t1", "c1")
    assert "id" not in best["entity"]


async def test_large_rows_come_back_bit_for_bit(served: Served) -> None:
    """Payloads that are translated in a thread are not changed either."""
    vectors = np.random.default_rng(2).standard_normal((100, 1000), np.float32)
    await served.run(lambda c: c.create_collection("a", 1000))

    await served.run(lambda c: c.insert("a", [{"id": n, "vector": vectors[n], "n": n} for n in range(100)]))

    rows = await served.run(lambda c: c.query("a", limit=100, output_fields=["vector", "n"]))
    assert np.array([row["vector"] for row in rows], np.float32).tobytes() == vectors.tobytes()
    assert [row["n"] for row in rows] == list(range(100))
    found = await served.run(lambda c: c.search("a", list(vectors), limit=1, output_fields=["vector"]))
    assert [hits[0]["id"] for hits in found] == list(range(100))


async def test_an_empty_collection_gives_empty_hits(served: Served) -> None:
    """A search over nothing has one empty list a query."""
    await served.run(lambda c: c.create_collection("a", schema=schema()))

    found = await served.run(lambda c: c.search("a", VECTORS[:2], limit=3, output_fields=["*"]))

    assert [list(hits) for hits in found] == [[], []]


async def test_search_parameters_reach_the_proxy_once_and_typed(served: Served) -> None:
    """What pymilvus sends twice, flat and as JSON, arrives once; the search's own words are not index parameters."""
    await fill(served, [FULL])

    await served.run(
        lambda c: c.search(
            "a",
            [VECTORS[0]],
            filter="i8 > {low}",
            filter_params={"low": 1},
            limit=2,
            offset=1,
            search_params={"metric_type": "l2", "params": {"ef": 64, "radius": 9.5, "range_filter": 1}},
            partition_names=["_default"],
            consistency_level="Strong",
            timeout=7,
        )
    )

    request = served.last(SearchRequest)
    assert (request.limit, request.offset, request.metric) == (2, 1, "L2")
    assert dict(request.params) == {"ef": 64}
    assert (request.radius, request.range_filter) == (9.5, 1.0)
    assert (request.filter, request.template) == ("i8 > {low}", {"low": 1})
    assert request.partitions == ("_default",)
    assert (request.consistency, request.guarantee_ts) == (Consistency.STRONG, 0)
    assert 0 < request.timeout_s < 8


async def test_consistency_travels_as_the_client_means_it(served: Served) -> None:
    """Nothing said is the collection's level; Session carries the client's last write."""
    await fill(served, [FULL])
    written = (await served.run(lambda c: c.insert("a", [EMPTY])), served.proxy._ticks)[1]

    await served.run(lambda c: c.search("a", [VECTORS[0]], limit=1))
    default = served.last(SearchRequest)
    await served.run(lambda c: c.query("a", limit=1, consistency_level="Session"))
    session = served.last(QueryRequest)
    await served.run(lambda c: c.query("a", limit=1, consistency_level="Bounded"))
    bounded = served.last(QueryRequest)

    assert default.consistency is None
    assert (session.consistency, session.guarantee_ts & 0x3FFFF) == (Consistency.SESSION, written)
    assert (bounded.consistency, bounded.guarantee_ts) == (Consistency.BOUNDED, 2)


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        ({"group_by_field": "t"}, "grouping search is not supported", 3000),
        ({"order_by_fields": "t:asc"}, "search ordered by fields is not supported", 3000),
        ({"data": None, "ids": [1]}, "search by primary key is not supported", 3000),
        ({"data": ["text"]}, "searching with VarChar is not supported", 3000),
        ({"data": [np.zeros(DIM, np.float16)]}, "searching with Float16Vector", 3000),
        ({"search_params": {"params": {"radius": "x"}}}, r"radius \[x\] is invalid", 1100),
        ({"search_params": {"round_decimal": 7}}, r"round_decimal \[7\] is invalid", 1100),
        ({"output_fields": ["count(*)", "t"]}, r"aggregate count\(\*\)", 3000),
    ],
)
async def test_unserved_searches_are_refused_by_name(
    served: Served, options: dict[str, Any], words: str, code: int
) -> None:
    """What a search cannot do is an error that says so, and the proxy never sees it."""
    await fill(served, [FULL])

    with pytest.raises(MilvusException, match=words) as caught:
        await served.run(lambda c: c.search("a", **{"data": [VECTORS[0]], **options}))

    assert caught.value.code == code
    assert not any(isinstance(request, SearchRequest) for request in served.proxy.seen)


async def test_other_unserved_calls_are_refused(served: Served) -> None:
    """Hybrid search, partial updates, ordered and grouped queries, iterators over searches are refused."""
    await fill(served, [FULL])
    hybrid = [AnnSearchRequest([VECTORS[0]], "vec", {}, 1)] * 2
    calls = {
        "hybrid search": lambda c: c.hybrid_search("a", hybrid, RRFRanker(), 1),
        "partial update": lambda c: c.upsert("a", [{"id": 1, "t": "x"}], partial_update=True),
        "query ordered by": lambda c: c.query("a", limit=1, order_by_fields=["t"]),
        "query grouped by": lambda c: c.query("a", limit=1, group_by_fields=["t"]),
        "aggregate": lambda c: c.query("a", limit=1, output_fields=["sum(i8)"]),
        "search iterator": lambda c: c.search_iterator("a", [VECTORS[0]], 2),
        "load_fields": lambda c: c.load_collection("a", load_fields=["id", "vec"]),
    }

    for words, call in calls.items():
        with pytest.raises(MilvusException, match=words) as caught:
            await served.run(call)
        assert caught.value.code == 3000


async def test_a_query_iterator_walks_all_rows_in_key_order(served: Served) -> None:
    """query_iterator pages through everything, pinned to the first page's timestamp."""
    await fill(served, [{"id": n, "vec": VECTORS[n]} for n in (4, 2, 0, 1, 3)])

    def walk(client: Any) -> list[int]:
        iterator = client.query_iterator("a", batch_size=2, output_fields=["id"])
        seen: list[int] = []
        while page := iterator.next():
            seen.extend(row["id"] for row in page)
        iterator.close()
        return seen

    assert await served.run(walk) == [0, 1, 2, 3, 4]
    assert served.last(QueryRequest).guarantee_ts > 1 << 18


async def test_rows_that_break_the_schema_are_refused_with_their_row(served: Served) -> None:
    """A value out of range is code 1100, with the field, the value, the limit and the row."""
    with pytest.raises(MilvusException, match=r"value \(128\) of field i8 is out of range.*row number: 1") as caught:
        await fill(served, [FULL, {**EMPTY, "i8": 128}])

    assert caught.value.code == 1100
    assert caught.value.is_input_error


async def test_the_client_retries_when_the_rate_is_limited(served: Served) -> None:
    """RATE_LIMIT is code 8 with error_code 49: pymilvus waits and tries again by itself."""
    limited = MishardsError(Kind.RATE_LIMIT, "too many rows wait for a commit")
    served.proxy.fail("write", limited, limited)

    told = await fill(served, [FULL])

    assert told["insert_count"] == 1


async def test_flushing_names_the_segments(served: Served) -> None:
    """flush waits for nothing more; persistent and loaded segments are listed."""
    await fill(served, [FULL])
    await served.run(lambda c: c.flush("a"))
    await served.run(lambda c: c.flush_all())
    await served.run(lambda c: c.load_collection("a"))

    (kept,) = await served.run(lambda c: c.list_persistent_segments("a"))
    (loaded,) = await served.run(lambda c: c.list_loaded_segments("a"))

    assert (kept.segment_id, kept.num_rows, kept.is_sorted) == (7, 1, True)
    assert (loaded.segment_id, loaded.mem_size) == (7, 1234)
