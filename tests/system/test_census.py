"""While rows are replaced, deleted, flushed and merged, a search for everything finds everything exactly once (I6)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from making import make_collection
from pymilvus import DataType, MilvusClient
from servers import Server

pytestmark = pytest.mark.process

SECONDS = 6.0
GROUP_ROWS = 60
STEADY = (0, 1, 2)  # groups that are only upserted: always there
FLICKERING = 3  # a group that is deleted and inserted again


def _keys(group: int) -> range:
    return range(group * GROUP_ROWS, (group + 1) * GROUP_ROWS)


@dataclass
class Writer:
    """Writes whole groups, one call a generation; `acknowledged` is the last generation of each steady group."""

    client: MilvusClient
    name: str
    generation: int = 0
    acknowledged: dict[int, int] = field(default_factory=dict)
    error: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.step()
        except BaseException as error:
            self.error = error

    def step(self) -> None:
        self.generation += 1
        for group in STEADY:
            self.client.upsert(self.name, self._rows(group))
            self.acknowledged[group] = self.generation
        if self.generation % 2:
            self.client.insert(self.name, self._rows(FLICKERING))
        else:
            self.client.delete(self.name, filter=f"group == {FLICKERING}")
        if self.generation % 5 == 0:
            self.client.flush(self.name)

    def _rows(self, group: int) -> list[dict[str, Any]]:
        vector = [float(self.generation % 5), float(group), 1.0, 0.0]
        return [{"id": key, "vector": vector, "group": group, "generation": self.generation} for key in _keys(group)]


@dataclass
class Checker:
    """One session of censuses; `seen` is the newest generation of each group in it."""

    client: MilvusClient
    name: str
    level: str
    writer: Writer
    seen: dict[int, int] = field(default_factory=dict)
    censuses: int = 0

    def check(self) -> None:
        acknowledged = dict(self.writer.acknowledged)
        answer = self.client.search(
            self.name,
            [[0.0, 0.0, 0.0, 0.0]],
            limit=10 * GROUP_ROWS,
            output_fields=["group", "generation"],
            consistency_level=self.level,
        )[0]
        generations = self._complete([hit["id"] for hit in answer], [hit["entity"] for hit in answer])
        for group, generation in generations.items():
            assert generation >= self.seen.get(group, 0), f"group {group} went back to generation {generation}"
            if self.level == "Strong":
                assert generation >= acknowledged.get(group, 0), f"group {group}: an acknowledged write is missing"
        self.seen.update(generations)
        self.censuses += 1

    def _complete(self, keys: Sequence[int], rows: Sequence[dict[str, Any]]) -> dict[int, int]:
        """The generation of each group, after checking that each is there as a whole, once, from one write."""
        assert len(set(keys)) == len(keys), "a key was found twice"
        found: dict[int, set[int]] = {}
        generations: dict[int, set[int]] = {}
        for key, row in zip(keys, rows, strict=True):
            found.setdefault(row["group"], set()).add(key)
            generations.setdefault(row["group"], set()).add(row["generation"])
        assert set(STEADY) <= set(found), "a group is missing"
        for group, members in found.items():
            assert members == set(_keys(group)), f"group {group} has {len(members)} of {GROUP_ROWS} rows"
            assert len(generations[group]) == 1, f"group {group} mixes the writes {generations[group]}"
        return {group: values.pop() for group, values in generations.items()}


def test_census_while_rows_change(server: Server, name: str) -> None:
    """Every key is found exactly once, each write is seen whole or not at all, no session goes back in time, and a
    Strong search sees every write that was acknowledged before it (I6, I7, I8, I10, I11)."""
    writing, reading = server.client(timeout=30.0), server.client(timeout=30.0)
    fields = {"group": {"datatype": DataType.INT64}, "generation": {"datatype": DataType.INT64}}
    make_collection(writing, name, dim=4, fields=fields)
    writer = Writer(writing, name)
    writer.step()
    checkers = [Checker(reading, name, level, writer) for level in ("Strong", "Session")]

    stop = threading.Event()
    thread = threading.Thread(target=writer.run, args=(stop,), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and writer.error is None:
            for checker in checkers:
                checker.check()
    finally:
        stop.set()
        thread.join(30)

    assert writer.error is None
    assert writer.generation >= 5
    assert all(checker.censuses >= 10 for checker in checkers)
    present = reading.query(name, filter=f"group == {FLICKERING}", consistency_level="Strong")
    assert len(present) == (GROUP_ROWS if writer.generation % 2 else 0)


@pytest.mark.timeout(180)
def test_census_under_faults() -> None:
    """While processes of a cluster are killed, paused, stopped and joined, and collections come and go, every answer is
    right, and every acknowledged write is there at the end (I5 to I11, I15)."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.census", "--minutes", "0.1", "--pause", "0.5", "--keys", "500"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
