"""Clients that write and read all the time: each key has one writing thread, each reading thread is one session."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from tools.census.history import History
from tools.census.judging import Asking, Hit, Judge
from tools.census.ledger import Ledger, Numbers, Op, rows_of

LEVELS = ("Strong", "Session", "Bounded", "Eventually")
BATCH_ROWS_MAX = 20  # of one write
BOUND_S = 5.5  # Bounded's 5 s, and some for the way
READS = ("search", "search", "search", "search and fetch", "query", "count")


@dataclass
class Shared:
    """What all threads of a run share."""

    seed: int
    connect: Callable[[], MilvusClient]
    history: History
    numbers: Numbers = field(default_factory=Numbers)
    stop: threading.Event = field(default_factory=threading.Event)


def make_collection(client: MilvusClient, ledger: Ledger, index: dict[str, Any], replicas: int) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=ledger.dim)
    schema.add_field("number", DataType.INT64)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", metric_type="L2", **index)
    client.create_collection(ledger.name, schema=schema, num_shards=ledger.shards)
    client.create_index(ledger.name, indexes)
    client.load_collection(ledger.name, replica_number=replicas)


class Writing(threading.Thread):
    """The only writer of every `of`-th key."""

    def __init__(self, shared: Shared, ledger: Ledger, slot: int, of: int) -> None:
        super().__init__(name=f"writer {slot} of {ledger.name}", daemon=True)
        self._shared = shared
        self._ledger = ledger
        self._random = random.Random(f"{shared.seed}/{self.name}")
        self._steady = [key for key in ledger.steady if key % of == slot]
        self._flickering = [key for key in ledger.flickering if key % of == slot]
        self._client = shared.connect()

    def run(self) -> None:
        while not self._shared.stop.is_set():
            self.step()
            time.sleep(self._random.uniform(0.0, 0.2))

    def step(self) -> None:
        what = self._random.choices(("upsert", "insert", "delete", "delete by filter"), (6, 2, 1, 1))[0]
        mine = self._steady if what == "upsert" else self._flickering
        self.write(what, self._random.sample(mine, self._random.randint(1, min(BATCH_ROWS_MAX, len(mine)))))

    def touch(self) -> bool:
        """Replace a few rows."""
        return self.write("upsert", self._steady[:BATCH_ROWS_MAX])

    def fill(self) -> bool:
        """Write all steady keys for the first time."""
        return all(self.write("upsert", keys) for keys in _runs(self._steady, 500))

    def write(self, what: str, keys: Sequence[int]) -> bool:
        """Whether it was acknowledged."""
        name, client, number = self._ledger.name, self._client, self._shared.numbers.draw()
        rows: list[dict[str, Any]] = []
        scores: dict[int, float] = {}
        if not what.startswith("delete"):
            rows, scores = rows_of(number, keys, self._ledger.dim, self._shared.seed)
        actions: dict[str, Callable[[], Any]] = {
            "upsert": lambda: client.upsert(name, rows),
            "insert": lambda: client.insert(name, rows),
            "delete": lambda: client.delete(name, ids=list(keys)),
            "delete by filter": lambda: client.delete(name, filter=f"id in {list(keys)} and number >= 0"),
        }
        op = Op(number, what, tuple(keys), time.monotonic(), scores)
        self._ledger.issue(op)
        done = self._shared.history.call(what, name, "write", actions[what], number=number, keys=list(keys))
        if done is None:
            op.failed_s = time.monotonic()
            return False
        op.acknowledged_s = time.monotonic()
        return True


class Reading(threading.Thread):
    """One session at one consistency level that reads everything, again and again."""

    def __init__(self, shared: Shared, ledger: Ledger, level: str) -> None:
        super().__init__(name=f"{level} reader of {ledger.name}", daemon=True)
        history = shared.history
        self._shared = shared
        self._ledger = ledger
        self._level = level
        self._random = random.Random(f"{shared.seed}/{self.name}")
        self._client = shared.connect()
        self._judge = Judge(ledger, level == "Session", history.blame, history.took_effect_late)
        self.last: dict[int, int] = {}  # the number of the write that each key showed in the last whole answer

    def run(self) -> None:
        while not self._shared.stop.is_set():
            self.read(self._random.choice(READS))
            time.sleep(self._random.uniform(0.0, 0.4))

    def read(self, what: str) -> bool:
        """Read everything once, and judge the answer; False when there was none."""
        began_s, history = time.monotonic(), self._shared.history
        found = history.call(
            f"{what} {self._level}",
            self._ledger.name,
            "Strong" if self._level == "Strong" else "read",
            {"query": self._query, "count": self._count}.get(what, lambda: self._search(what == "search and fetch")),
        )
        if found is None:
            return False
        asking = Asking(
            f"{what} {self._level}", began_s, time.monotonic(), self._must_see_s(began_s), self._level == "Strong"
        )
        if what != "count":
            self._judge.judge(asking, found)
            self.last = {hit.key: hit.number for hit in found}
        elif self._level == "Strong":
            self._judge.judge_count(asking, found)
        return True

    def _must_see_s(self, began_s: float) -> float:
        """Writes acknowledged by then have to be found. All threads are one session to pymilvus: it keeps the time of
        the last write for each address. Bounded keeps its bound while the metadata service answers."""
        if self._level in ("Strong", "Session"):
            return began_s
        bounded = self._level == "Bounded" and self._shared.history.is_calm(began_s - BOUND_S, "metadata")
        return began_s - BOUND_S if bounded else 0.0

    def _search(self, fetch: bool) -> list[Hit]:
        limit = len(self._ledger.keys) + 10
        answer = self._client.search(
            self._ledger.name,
            [[0.0] * self._ledger.dim],
            limit=limit,
            output_fields=["number", "vector"] if fetch else ["number"],
            search_params={"params": {"ef": limit}},
            consistency_level=self._level,
        )[0]
        if fetch:  # the vector that was fetched must be the one that was scored
            return [Hit(hit["id"], hit["entity"]["number"], _length(hit["entity"]["vector"])) for hit in answer]
        return [Hit(hit["id"], hit["entity"]["number"], hit["distance"]) for hit in answer]

    def _query(self) -> list[Hit]:
        rows = self._client.query(
            self._ledger.name,
            filter="id >= 0",
            limit=len(self._ledger.keys) + 10,
            output_fields=["number"],
            consistency_level=self._level,
        )
        return [Hit(row["id"], row["number"], None) for row in rows]

    def _count(self) -> int:
        rows = self._client.query(self._ledger.name, output_fields=["count(*)"], consistency_level=self._level)
        return int(rows[0]["count(*)"])


def _length(vector: Sequence[float]) -> float:
    array = np.asarray(vector, dtype=np.float64)
    return float(array @ array)


def _runs(keys: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    return (keys[start : start + length] for start in range(0, len(keys), length))
