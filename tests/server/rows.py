"""One collection as the tests of this folder use it, through a proxy's own methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mishards.model import Consistency, DataType, Field, FieldId, Schema
from mishards.proxy.requests import (
    DeleteRequest,
    Mutation,
    ProxyService,
    QueryRequest,
    RowsRequest,
    SearchRequest,
    SearchResult,
)
from mishards.schema.columns import Column
from mishards.wire import definitions as d

DIM = 4
NAME = "books"
SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="number", type=DataType.INT64),
        Field(id=FieldId(102), name="vector", type=DataType.FLOAT_VECTOR, dim=DIM),
    )
)


def row(key: int, random: np.random.Generator, number: int = 0) -> dict[str, Any]:
    """Small whole numbers as a vector: every score is exact, ties are frequent."""
    return {"id": key, "number": number, "vector": random.integers(0, 4, DIM).astype(float).tolist()}


async def create(proxy: ProxyService, *, shards: int = 1, metric: str = "L2", replicas: int = 1) -> None:
    named = {"database": "default", "collection": NAME}
    await proxy.define(d.CreateCollection(**named, schema=SCHEMA, shards=shards))
    await proxy.define(d.CreateIndex(**named, field="vector", name="", type="FLAT", metric=metric))
    await proxy.define(d.LoadCollection(**named, replicas=replicas))


async def write(proxy: ProxyService, rows: Sequence[Mapping[str, Any]], collection: str = NAME) -> Mutation:
    columns = {
        "id": Column(np.array([row["id"] for row in rows], np.int64)),
        "number": Column(np.array([row["number"] for row in rows], np.int64)),
        "vector": Column(np.array([row["vector"] for row in rows], np.float32)),
    }
    return await proxy.write(RowsRequest(kind="upsert", collection=collection, columns=columns, rows=len(rows)))


async def delete(proxy: ProxyService, expression: str) -> Mutation:
    return await proxy.delete(DeleteRequest(collection=NAME, filter=expression))


async def search(proxy: ProxyService, query: Sequence[float], limit: int, **options: Any) -> SearchResult:
    options = {"consistency": Consistency.STRONG, "output": ("number",), "timeout_s": 20.0, **options}
    queries = np.array([query], np.float32)
    return await proxy.search(SearchRequest(collection=NAME, queries=queries, limit=limit, **options))


async def found(proxy: ProxyService, query: Sequence[float], limit: int, **options: Any) -> list[tuple[int, float]]:
    """(key, score) of the hits."""
    result = await search(proxy, query, limit, **options)
    return list(zip(list(result.keys), result.scores.tolist(), strict=True))


async def found_rows(proxy: ProxyService, query: Sequence[float], limit: int, **options: Any) -> list[dict[str, Any]]:
    """The whole rows of the hits."""
    result = await search(proxy, query, limit, output=("*",), **options)
    assert result.rows is not None
    assert result.rows.column("100").to_pylist() == list(result.keys)
    names = {field.column: field.name for field in SCHEMA.fields}
    return [{names[column]: value for column, value in row.items()} for row in result.rows.to_pylist()]


async def numbers(proxy: ProxyService, expression: str = "", **options: Any) -> dict[int, int]:
    """The number of every row that passes, by key; each key is there once."""
    options = {"consistency": Consistency.STRONG, "limit": 10_000, "timeout_s": 20.0, **options}
    request = QueryRequest(collection=NAME, filter=expression, output=("id", "number"), **options)
    rows = (await proxy.query(request)).rows
    assert rows is not None
    keys, values = rows.column("100").to_pylist(), rows.column("101").to_pylist()
    assert keys == sorted(set(keys)), "a key is there twice"
    return dict(zip(keys, values, strict=True))


async def count(proxy: ProxyService, expression: str = "") -> int:
    request = QueryRequest(collection=NAME, filter=expression, count=True, consistency=Consistency.STRONG)
    return (await proxy.query(request)).count
