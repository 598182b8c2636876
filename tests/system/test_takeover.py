"""Writers that are killed and paused while rows with generated keys are inserted: each row once (P2, P3)."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymilvus import DataType, MilvusClient
from servers import Server, eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

NAME = "numbered"
PER_WRITE = 12  # rows, so that most writes have a part for every shard
TAKEOVER_S = 30.0


def _make(client: MilvusClient) -> None:
    """Rows have generated keys: a repetition that was not recognised would double them."""
    schema = client.create_schema(auto_id=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("number", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection(NAME, schema=schema, index_params=index, num_shards=4)


@dataclass
class Inserts:
    """What two clients have sent, number by number, and what was acknowledged of it."""

    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


@contextmanager
def _inserting(server: Server) -> Iterator[Inserts]:
    done, stop = Inserts(), threading.Event()

    def insert(first: int) -> None:
        client = server.client(timeout=30.0)
        number = first
        while not stop.is_set():
            numbers = range(number, number + PER_WRITE)
            done.sent.update(numbers)
            try:
                client.insert(NAME, [{"number": n, "vector": [float(n), 0.0, 0.0, 1.0]} for n in numbers], timeout=30)
            except Exception as error:
                done.failures.append(str(error))
            else:
                done.acknowledged.update(numbers)
            number += PER_WRITE
        client.close()

    workers = [threading.Thread(target=insert, args=(1_000_000 * n,), daemon=True) for n in range(2)]
    for worker in workers:
        worker.start()
    try:
        yield done
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)


def _pause(server: Server, pid: int) -> None:
    """Stop the process, but not while it holds the one lock of SQLite, which nobody could take from it."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        database = sqlite3.connect(server.data / "metadata.db", timeout=1.0, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
        finally:
            database.close()


def _living(server: Server) -> list[int]:
    """The processes of both writers, when both run."""
    while True:
        pids = [int(member["pid"]) for member in server.members("writer")]
        if len(pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pids):
            return pids


def test_generated_keys_are_written_once_whatever_happens_to_writers(launch: Callable[..., Server]) -> None:
    """Two writers are killed and paused past their leases in turn: no acknowledged row is lost, none is there twice,
    and no write fails."""
    server = launch("cluster", "--writers", "2", "--readers", "1")
    client = server.client(timeout=30.0)
    _make(client)

    with _inserting(server) as done:

        def goes_on() -> None:
            before = len(done.acknowledged)
            eventually(lambda: len(done.acknowledged) >= before + 20 * PER_WRITE, TAKEOVER_S, "inserts")

        goes_on()
        for turn in range(3):
            os.kill(_living(server)[turn % 2], signal.SIGKILL)
            goes_on()
        paused = _living(server)[-1]
        _pause(server, paused)
        goes_on()
        os.kill(paused, signal.SIGCONT)
        goes_on()

    rows = client.query(NAME, filter="number >= 0", output_fields=["number"], consistency_level="Strong")
    found = Counter(row["number"] for row in rows)
    assert [number for number, times in found.items() if times > 1] == []
    assert done.acknowledged - found.keys() == set()
    assert found.keys() - done.sent == set()
    assert done.failures == []
    client.close()
