"""Answers equal those of the oracle, whatever state the rows are in: fresh, flushed, deleted, merged (I5, I11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from making import make_collection
from pymilvus import DataType, MilvusClient

from oracle import Metric, Oracle, Predicate

pytestmark = pytest.mark.process

DIM = 16
PARTITIONS = ("_default", "north", "south")
KINDS = ("game", "game-data", "editor", "tool", "toolkit")

FIELDS: dict[str, dict[str, Any]] = {
    "number": {"datatype": DataType.INT64},
    "small": {"datatype": DataType.INT8},
    "price": {"datatype": DataType.DOUBLE},
    "flag": {"datatype": DataType.BOOL},
    "kind": {"datatype": DataType.VARCHAR, "max_length": 40},
    "rating": {"datatype": DataType.INT32, "nullable": True},
    "doc": {"datatype": DataType.JSON},
}


def _rated(test: Predicate) -> Predicate:
    """A comparison with null does not match."""
    return lambda row: row["rating"] is not None and test(row)


FILTERS: list[tuple[str, Predicate]] = [
    ("number == 7", lambda r: r["number"] == 7),
    ("number != 7", lambda r: r["number"] != 7),
    ("number >= 10 and number < 20", lambda r: 10 <= r["number"] < 20),
    ("10 <= number < 20", lambda r: 10 <= r["number"] < 20),
    ("number in [1, 2, 30, 1000]", lambda r: r["number"] in (1, 2, 30)),
    ("number not in [1, 2, 30]", lambda r: r["number"] not in (1, 2, 30)),
    ("number < 5 or small > 5", lambda r: r["number"] < 5 or r["small"] > 5),
    ("not (number < 25)", lambda r: r["number"] >= 25),
    ("number % 3 == 1", lambda r: r["number"] % 3 == 1),
    ("number * 2 + 1 > 60", lambda r: r["number"] * 2 + 1 > 60),
    ("small < -2 && flag == true", lambda r: r["small"] < -2 and r["flag"]),
    ("flag == false || price > 8.5", lambda r: not r["flag"] or r["price"] > 8.5),
    ("price <= 2.25", lambda r: r["price"] <= 2.25),
    ('kind == "game"', lambda r: r["kind"] == "game"),
    ('kind in ["game", "editor"]', lambda r: r["kind"] in ("game", "editor")),
    ('kind like "game%"', lambda r: r["kind"].startswith("game")),
    ('kind like "%tool%"', lambda r: "tool" in r["kind"]),
    ('kind like "%or"', lambda r: r["kind"].endswith("or")),
    ('kind > "game"', lambda r: r["kind"] > "game"),
    ("rating is null", lambda r: r["rating"] is None),
    ("rating is not null", lambda r: r["rating"] is not None),
    ("rating > 2", _rated(lambda r: r["rating"] > 2)),
    ("not (rating > 2)", _rated(lambda r: r["rating"] <= 2)),
    ("rating > 2 or number == 7", lambda r: (r["rating"] is not None and r["rating"] > 2) or r["number"] == 7),
    ('doc["a"] == 3', lambda r: r["doc"].get("a") == 3),
    ('doc["b"]["c"] > 6', lambda r: r["doc"]["b"]["c"] > 6),
    ('doc["tags"][0] == "x"', lambda r: r["doc"]["tags"][0] == "x"),
    ('json_contains(doc["tags"], "y")', lambda r: "y" in r["doc"]["tags"]),
    ('exists doc["a"]', lambda r: "a" in r["doc"]),
    ('colour == "red"', lambda r: r.get("colour") == "red"),
    ('size >= 3 and colour != "red"', lambda r: r.get("size", -1) >= 3 and r.get("colour", "red") != "red"),
    ("id in [3, 5, 8, 100000]", lambda r: r["id"] in (3, 5, 8)),
    ("number > 1000", lambda r: False),
]


class Rows:
    """Deterministic rows of small exact numbers; the same key made twice gets another content."""

    def __init__(self, metric: Metric, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._metric = metric

    def vector(self) -> list[float]:
        """Of +-1 for COSINE, else small integers: every score is exact in float32, and ties abound."""
        values = [-1, 1] if self._metric == "COSINE" else [-2, -1, 0, 1, 2]
        return [float(x) for x in self._random.choice(values, DIM)]

    def make(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        return [self._row(key) for key in keys]

    def _row(self, key: int) -> dict[str, Any]:
        draw = self._random.integers
        row: dict[str, Any] = {
            "id": key,
            "vector": self.vector(),
            "number": int(draw(40)),
            "small": int(draw(-8, 8)),
            "price": int(draw(40)) / 4,
            "flag": bool(draw(2)),
            "kind": KINDS[draw(len(KINDS))],
            "rating": None if draw(3) == 0 else int(draw(5)),
            "doc": {"b": {"c": int(draw(10))}, "tags": [["x", "y"], ["y", "z"], ["z"]][draw(3)]},
        }
        if draw(2):
            row["doc"]["a"] = int(draw(5))
        if draw(3):
            row["colour"] = ["red", "green", "blue"][draw(3)]
        if draw(3):
            row["size"] = int(draw(6))
        return row


class Pair:
    """A collection and its oracle: every write goes to both, every answer is compared."""

    def __init__(self, client: MilvusClient, name: str, metric: Metric) -> None:
        self.client = client
        self.name = name
        self.oracle = Oracle(metric)
        self.rows = Rows(metric, seed=len(metric))

    def insert(self, keys: Sequence[int], partition: str = "_default") -> None:
        rows = self.rows.make(keys)
        assert self.client.insert(self.name, rows, partition_name=partition)["insert_count"] == len(rows)
        self.oracle.insert(rows, partition)

    def upsert(self, keys: Sequence[int], partition: str = "_default") -> None:
        rows = self.rows.make(keys)
        assert self.client.upsert(self.name, rows, partition_name=partition)["upsert_count"] == len(rows)
        self.oracle.upsert(rows, partition)

    def delete(self, keys: Sequence[int]) -> None:
        self.client.delete(self.name, ids=list(keys))
        self.oracle.delete(keys)

    def delete_where(self, expression: str, predicate: Predicate) -> None:
        self.client.delete(self.name, filter=expression)
        self.oracle.delete_where(predicate)

    def flush(self) -> None:
        self.client.flush(self.name)

    def check(self, state: str) -> None:
        """Searches with every k, filter, partition, offset and range; queries; counts."""
        everything = len(self.oracle) + 10
        for k in (1, 7, everything):
            self._check_search(f"{state}, k={k}", limit=k)
        self._check_search(f"{state}, offset", limit=9, offset=25)
        self._check_search(f"{state}, offset past the end", limit=5, offset=everything)
        for partitions in (["north"], ["south", "_default"]):
            self._check_search(f"{state}, {partitions}", limit=20, partitions=partitions)
        for radius, range_filter in self._ranges():
            bounds: dict[str, Any] = {"radius": radius, "range_filter": range_filter}
            self._check_search(f"{state}, {bounds}", limit=everything, **bounds)
        for expression, predicate in FILTERS:
            self._check_search(f"{state}, {expression}", limit=15, expression=expression, where=predicate)
            self._check_query(f"{state}, {expression}", expression, predicate)
        counted = self.client.query(self.name, output_fields=["count(*)"], consistency_level="Strong")
        assert counted[0]["count(*)"] == len(self.oracle), state

    def _ranges(self) -> list[tuple[float, float | None]]:
        if self.oracle.metric == "L2":
            return [(36.0, None), (44.0, 28.0)]
        return [(0.25, None), (0.0, 0.5)] if self.oracle.metric == "COSINE" else [(3.0, None), (-2.0, 6.0)]

    def _check_search(
        self,
        what: str,
        *,
        limit: int,
        offset: int = 0,
        expression: str = "",
        where: Predicate | None = None,
        partitions: list[str] | None = None,
        radius: float | None = None,
        range_filter: float | None = None,
    ) -> None:
        query = self.rows.vector()
        bounds = {"radius": radius, "range_filter": range_filter}
        answer = self.client.search(
            self.name,
            [query],
            limit=limit,
            filter=expression,
            partition_names=partitions,
            search_params={"offset": offset, "params": {k: v for k, v in bounds.items() if v is not None}},
            consistency_level="Strong",
        )[0]
        found = [(hit["id"], hit["distance"]) for hit in answer]
        expected = self.oracle.search(query, limit, offset=offset, where=where, partitions=partitions, **bounds)
        assert found == [tuple(hit) for hit in expected], what

    def _check_query(self, what: str, expression: str, predicate: Predicate) -> None:
        found = list(self.client.query(self.name, filter=expression, consistency_level="Strong"))
        assert found == self.oracle.query(predicate), what


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
def test_answers_equal_the_oracle_in_every_state(client: MilvusClient, name: str, metric: Metric) -> None:
    """A FLAT search and a query answer exactly what the writes so far imply: fresh, flushed, mixed, merged."""
    make_collection(client, name, dim=DIM, metric=metric, dynamic=True, fields=FIELDS)
    for partition in PARTITIONS[1:]:
        client.create_partition(name, partition)
    pair = Pair(client, name, metric)
    pair.check("empty")

    for i, partition in enumerate(PARTITIONS):
        pair.insert(range(i * 100, i * 100 + 60), partition)
        pair.insert(range(i * 100 + 60, i * 100 + 100), partition)
    pair.check("fresh")

    pair.flush()
    pair.check("flushed")

    pair.upsert(range(20, 50))
    pair.delete(range(0, 30, 3))
    pair.delete_where('kind == "editor" and number > 20', lambda r: r["kind"] == "editor" and r["number"] > 20)
    pair.insert(range(300, 340), "south")
    pair.check("segments, fresh rows and deletes")

    pair.flush()
    pair.check("flushed with deletes")

    for start in range(400, 480, 20):
        pair.insert(range(start, start + 20))
        pair.upsert(range(start - 10, start))
        pair.flush()
    pair.delete(range(100, 200, 2))
    pair.check("many segments, perhaps merged")

    pair.insert(range(0, 30, 3))
    pair.flush()
    pair.check("deleted keys inserted again")


def test_many_queries_in_one_search(client: MilvusClient, name: str) -> None:
    """Each of many query vectors gets its own answer, in order."""
    make_collection(client, name, dim=DIM)
    rows = Rows("L2", seed=1)
    oracle = Oracle("L2")
    batch = [{"id": i, "vector": rows.vector()} for i in range(500)]
    client.insert(name, batch)
    oracle.insert(batch)
    queries = [rows.vector() for _ in range(100)]

    answers = client.search(name, queries, limit=10, consistency_level="Strong")

    for query, answer in zip(queries, answers, strict=True):
        assert [(hit["id"], hit["distance"]) for hit in answer] == [tuple(h) for h in oracle.search(query, 10)]


def test_text_keys_order_ties(client: MilvusClient, name: str) -> None:
    """Ties among VARCHAR primary keys come in the order of their UTF-8 bytes, before and after a flush."""
    make_collection(client, name, key=DataType.VARCHAR, dim=2)
    keys = ["b", "a", "ä", "aa", "Z", "10", "9", "日本"]
    rows = [{"id": key, "vector": [1.0, 0.0]} for key in keys]
    client.insert(name, rows)
    oracle = Oracle()
    oracle.insert(rows)

    for state in ("fresh", "flushed"):
        answer = client.search(name, [[0.0, 0.0]], limit=20, consistency_level="Strong")[0]
        assert [hit["id"] for hit in answer] == [hit.key for hit in oracle.search([0, 0], 20)], state
        client.flush(name)


def test_approximate_indexes_find_what_exact_search_finds(client: MilvusClient, name: str) -> None:
    """On attached HNSW and IVF_FLAT indexes searched wide the answers are those of exact search, filters and deletes
    included."""
    random = np.random.default_rng(5)
    vectors = random.standard_normal((3000, 32)).astype(np.float32)
    make_collection(client, name, dim=32, metric="COSINE", fields={"group": {"datatype": DataType.INT64}})
    rows = [{"id": i, "vector": vectors[i], "group": i % 10} for i in range(len(vectors))]
    client.insert(name, rows)
    client.delete(name, ids=list(range(0, 3000, 7)))
    client.flush(name)
    queries = random.standard_normal((20, 32)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alive = np.arange(3000) % 7 != 0

    for index, build, search in (
        ("HNSW", {"M": 16, "efConstruction": 200}, {"ef": 400}),
        ("IVF_FLAT", {"nlist": 32}, {"nprobe": 32}),
    ):
        client.release_collection(name)
        client.drop_index(name, "vector")
        params = client.prepare_index_params()
        params.add_index("vector", index_type=index, metric_type="COSINE", params=build)
        client.create_index(name, params)
        client.load_collection(name)
        for expression, passes in (("", alive), ("group in [1, 2]", alive & np.isin(np.arange(3000) % 10, (1, 2)))):
            scores = np.where(passes, queries @ unit.T, -np.inf)
            exact = np.argsort(-scores, axis=1)[:, :10]
            answers = client.search(
                name,
                list(queries),
                limit=10,
                filter=expression,
                search_params={"params": search},
                consistency_level="Strong",
            )
            found = [{hit["id"] for hit in answer} for answer in answers]
            same = sum(len(ids & set(truth.tolist())) for ids, truth in zip(found, exact, strict=True))
            assert same >= 0.98 * exact.size, (index, expression)
