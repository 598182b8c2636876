"""What the bench asks of a system beside searching, through pymilvus, in ways that Milvus 2.3 knows too."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException

from bench import settings as s
from bench.data import Dataset

COLLECTION = "bench"
FIRST_QUERIES = 10
FIRST_RECALL = 0.8  # of the first answers after a restart; less means that rows are still missing


class BenchError(Exception):
    """A system did not do what a measurement needs."""


def connect(uri: str, within_s: float = 120.0, check: Callable[[], None] = lambda: None) -> MilvusClient:
    """A client, as soon as the system lets one in. `check` raises when the system has died."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each attempt on a system that is starting
    ends_s = time.monotonic() + within_s
    while True:
        try:
            return MilvusClient(uri, timeout=2.0, dedicated=True)
        except MilvusException as error:
            check()
            if time.monotonic() > ends_s:
                raise BenchError(f"{uri} lets nobody in after {within_s:g} s: {error}") from error


def create(client: MilvusClient, name: str, dim: int, metric: str) -> None:
    """A loaded collection with an index, of rows (id, v, n)."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("n", DataType.INT64)
    index = client.prepare_index_params()
    index.add_index("v", index_type=s.INDEX, metric_type=metric, params=s.BUILD)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Bounded")


def search(client: MilvusClient, name: str, queries: list[Any], point: s.Point, timeout_s: float = 30.0) -> Any:
    """The one call whose time is measured. Parameters are the same for every system."""
    return client.search(
        name,
        queries,
        filter=point.filter,
        limit=s.LIMIT,
        search_params={"params": s.SEARCH},
        consistency_level=point.consistency,
        timeout=timeout_s,
    )


def ids(answer: Any) -> list[list[int]]:
    return [[hit["id"] for hit in hits] for hits in answer]


def until_found(client: MilvusClient, data: Dataset, row: int, within_s: float = 60.0) -> None:
    """Returns when a search at Bounded consistency finds the row by its own vector."""
    point = s.Point("", 1)
    _until(
        lambda: row in ids(search(client, COLLECTION, [data.vectors[row]], point))[0],
        0.01,
        within_s,
        f"row {row} found",
    )


def until_correct(client: MilvusClient, data: Dataset, within_s: float = 120.0) -> None:
    """Returns when the first queries get right answers, which are also complete."""
    point = s.Point("", 1)

    def correct() -> bool:
        answers = [(n, ids(search(client, COLLECTION, [data.queries[n]], point))[0]) for n in range(FIRST_QUERIES)]
        return data.recall(answers, s.LIMIT, 100) >= FIRST_RECALL

    _until(correct, 0.02, within_s, "right answers")


def until_indexed(client: MilvusClient, rows: int, within_s: float = 600.0) -> None:
    """Returns when all rows have an index and searches use it."""

    def indexed() -> bool:
        state = client.describe_index(COLLECTION, "v")
        if state["pending_index_rows"] or state["indexed_rows"] < rows:
            return False
        loaded = [each for each in client.list_loaded_segments(COLLECTION) if each.state_name == "Sealed"]
        return bool(sum(each.num_rows for each in loaded) >= rows)

    _until(indexed, 0.2, within_s, f"{rows} rows indexed")


def until_settled(client: MilvusClient, quiet_s: float = 3.0, within_s: float = 300.0) -> None:
    """Returns when the segments have not changed for a while: merges are done."""
    seen, since_s = None, time.monotonic()
    ends_s = since_s + within_s
    while time.monotonic() - since_s < quiet_s:
        now = sorted((each.segment_id, each.num_rows) for each in client.list_loaded_segments(COLLECTION))
        if now != seen:
            seen, since_s = now, time.monotonic()
        if time.monotonic() > ends_s:
            raise BenchError(f"segments still change after {within_s:g} s")
        time.sleep(0.2)


def rows_of(data: Dataset, first: int, last: int) -> list[dict[str, Any]]:
    """The rows [first, last) as pymilvus takes them."""
    numbers = data.numbers[first:last].tolist()
    return [{"id": first + i, "v": data.vectors[first + i], "n": number} for i, number in enumerate(numbers)]


def _until(true: Callable[[], bool], every_s: float, within_s: float, what: str) -> None:
    ends_s, last = time.monotonic() + within_s, ""
    while True:
        try:
            if true():
                return
        except MilvusException as error:  # not ready for it yet
            last = f": {error}"
        if time.monotonic() > ends_s:
            raise BenchError(f"no {what} within {within_s:g} s{last}")
        time.sleep(every_s)
