"""Runs a real cluster under faults and checks every answer: is anything lost, doubled, stale or back from the dead?

    python tools/chaos.py --seed 1 --seconds 60

A `mishards cluster` works in a temporary folder while some of its processes are killed or paused, readers join and
leave, and other collections come and go: all drawn from the seed, though not to the microsecond. Writers upsert, insert
and delete rows that carry the number of the write that made them; checkers read everything at Strong and Session, and
compare each answer with what was acknowledged before it (a call that failed may have happened or not). Calls that fail
are counted, since a client can repeat them; a wrong answer, or one that never comes, is an anomaly. Exit code 1 with
anomalies, or with defects in the log. `chaos_census.py` has the workload.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos_census import CALL_S_MAX, DIM, Checking, Findings, Ledger, Shared, Writing, say
from pymilvus import DataType, MilvusClient

SETTINGS = """
member_timeout_s = 5.0

[writer]
lease_s = 2.0
inline_bytes_max = 2048
seal_files = 8
seal_age_s = 1.5

[builder]
interval_s = 0.2
merge_files = 2
tombstones_max = 2000
task_lease_s = 4.0
"""
START_S_MAX = 60.0
END_S_MAX = 60.0  # for the cluster to take writes again after the last fault
STEADY_SHARE = 0.7  # of the keys are only replaced; the others are deleted and inserted again
PAUSE_S = (1.0, 8.0)
KILLED = ("reader", "reader", "writer", "builder", "proxy")
PAUSED = ("reader", "writer", "builder")
DEFECTS = ("Traceback (most recent call last)", "level=error", "was never retrieved")  # that no fault explains


# ---------------------------------------------------------------------------------------------------- what should be
# ------------------------------------------------------------------------------------------------------- the cluster


class Cluster:
    """`mishards cluster` and readers that join it."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.log = folder / "cluster.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._settings = folder / "mishards.toml"
        self._settings.write_text(SETTINGS + f"garbage_grace_s = {arguments.grace}\n")
        counts = [f"--{roles}={getattr(arguments, roles)}" for roles in ("proxies", "readers", "writers")]
        self._process = self._run("cluster", "--port", str(self.port), *counts)
        self.joined: list[subprocess.Popen[bytes]] = []

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        common = ("--data", str(self.folder / "data"), "--config", str(self._settings), "--http-port", "0")
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "mishards", *arguments, *common], stdout=output, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        deadline_s = time.monotonic() + START_S_MAX
        while b"mishards cluster ready" not in self.log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"the cluster did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def client(self) -> MilvusClient:
        return MilvusClient(f"http://127.0.0.1:{self.port}", dedicated=True, timeout=CALL_S_MAX)

    def pids(self, role: str) -> list[int]:
        """The cluster's own processes of a role, by node id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                words = (process / "cmdline").read_bytes().decode().split("\0")
                if parent == self._process.pid and words[words.index("--role") + 1] == role:
                    found[words[words.index("--node-id") + 1]] = int(process.name)
        return [found[node] for node in sorted(found)]

    def join_reader(self, number: int) -> None:
        self.joined.append(self._run("serve", "--role", "reader", "--node-id", f"joined-{number}"))

    def stop(self) -> None:
        for process in (*self.joined, self._process):
            process.terminate()
        for process in (*self.joined, self._process):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def defects(self) -> list[str]:
        """Lines of the log that tell of a defect in the program."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if any(w in line for w in DEFECTS)]


def make_collection(client: MilvusClient, name: str, index: str, **options: Any) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("number", DataType.INT64)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type=index, metric_type="L2")
    client.create_collection(name, schema=schema, **options)
    client.create_index(name, indexes)


# ------------------------------------------------------------------------------------------------------------- faults


class Faults(threading.Thread):
    """Draws one disturbance after the other."""

    def __init__(self, shared: Shared, cluster: Cluster, names: list[str], kinds: list[str], pause_s: float) -> None:
        super().__init__(daemon=True)
        self._shared = shared
        self._cluster = cluster
        self._collections = names
        self._random = random.Random(f"{shared.seed}/faults")
        self._kinds = kinds
        self._pause_s = pause_s
        self._client = cluster.client()
        self._paused: dict[int, threading.Timer] = {}  # by pid; each goes on by itself, whatever this thread waits for
        self._others: list[str] = []
        self._names = itertools.count(1)
        self.stop = threading.Event()

    def run(self) -> None:
        actions = {"kill": self._kill, "pause": self._pause, "join": self._join, "flush": self._flush}
        actions |= {"load": self._load, "ddl": self._ddl}
        while not self.stop.wait(self._random.uniform(0.3, 2 * self._pause_s)):
            what = actions[self._random.choice(self._kinds)]()
            self._shared.findings.faults[what] += 1
            say(f"{time.strftime('%H:%M:%S')} {what}")
        for pid, timer in list(self._paused.items()):
            timer.cancel()
            self._go_on(pid)

    def _go_on(self, pid: int) -> None:
        self._paused.pop(pid, None)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _kill(self) -> str:
        role = self._random.choice(KILLED)
        pids = self._cluster.pids(role)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), signal.SIGKILL)
        return f"kill {role}"

    def _pause(self) -> str:
        role = self._random.choice(PAUSED)
        pids = [pid for pid in self._cluster.pids(role) if pid not in self._paused]
        if pids:
            pid = self._random.choice(pids)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                timer = self._paused[pid] = threading.Timer(self._random.uniform(*PAUSE_S), self._go_on, (pid,))
                timer.start()
        return f"pause {role}"

    def _join(self) -> str:
        cluster = self._cluster
        live = [process for process in cluster.joined if process.poll() is None]
        if len(live) < 2:
            cluster.join_reader(len(cluster.joined) + 1)
            return "join reader"
        self._random.choice(live).send_signal(self._random.choice((signal.SIGTERM, signal.SIGKILL)))
        return "leave reader"

    def _flush(self) -> str:
        self._shared.findings.call("flush", lambda: self._client.flush(self._random.choice(self._collections)))
        return "flush"

    def _load(self) -> str:
        if not self._others:
            return self._ddl()
        name = self._random.choice(self._others)
        action = self._random.choice((self._client.release_collection, self._client.load_collection))
        self._shared.findings.call(action.__name__, lambda: action(name) or True)
        return action.__name__

    def _ddl(self) -> str:
        if len(self._others) >= 2:
            name = self._others.pop(0)
            self._shared.findings.call("drop", lambda: self._client.drop_collection(name) or True)
            return "drop"
        name = f"other{next(self._names)}"
        self._others.append(name)
        self._shared.findings.call("create", lambda: make_collection(self._client, name, "FLAT") or True)
        rows = [{"id": i, "vector": [float(i)] * DIM, "number": i} for i in range(50)]
        self._shared.findings.call("insert other", lambda: self._client.insert(name, rows))
        return "create"


# ---------------------------------------------------------------------------------------------------------------- run


class Run:
    """One run from start to verdict."""

    def __init__(self, cluster: Cluster, arguments: argparse.Namespace) -> None:
        self.cluster = cluster
        self.shared = Shared(arguments.seed, cluster.client)
        self.findings = self.shared.findings
        self._arguments = arguments
        steady = int(arguments.keys * STEADY_SHARE)
        self._ledgers = [
            Ledger(name, shards, range(steady), range(steady, arguments.keys))
            for name, shards in (("one_shard", 1), ("three_shards", 3))
        ]

    def go(self) -> None:
        client = self.cluster.client()
        for ledger, index, replicas in zip(self._ledgers, ("FLAT", "HNSW"), (1, 2), strict=True):
            make_collection(client, ledger.name, index, num_shards=ledger.shards)
            client.load_collection(ledger.name, replica_number=replicas)
        writings = [Writing(self.shared, ledger, slot, 2) for ledger in self._ledgers for slot in range(2)]
        for ledger, writing in zip(self._ledgers, writings[::2], strict=True):
            for keys in _runs(ledger.steady, 500):
                assert writing.write("upsert", tuple(keys)), self.findings.failed
        checkings = [
            Checking(self.shared, ledger, level) for ledger in self._ledgers for level in ("Strong", "Session")
        ]
        faults = Faults(
            self.shared,
            self.cluster,
            [ledger.name for ledger in self._ledgers],
            self._arguments.faults.split(","),
            self._arguments.pause,
        )
        threads = [*writings, *checkings, faults]
        for thread in threads:
            thread.start()
        time.sleep(self._arguments.seconds)
        faults.stop.set()
        faults.join(CALL_S_MAX)
        time.sleep(2.0)
        self.shared.stop.set()
        for thread in threads:
            thread.join(CALL_S_MAX + 10.0)
            if thread.is_alive():
                self.findings.anomaly(f"{thread} hangs")
        self._judge_the_end(client, writings, checkings[::2])

    def _judge_the_end(self, client: MilvusClient, writings: list[Writing], checkings: list[Checking]) -> None:
        """All is as acknowledged: as it lies there, after a flush, and loaded anew."""
        for writing in writings[::2]:
            self._until(
                lambda writing=writing: writing.write("upsert", tuple(writing.steady[:5])),
                "a write after the last fault",
            )
        for ledger, checking in zip(self._ledgers, checkings, strict=True):
            for prepare in (
                lambda: None,
                lambda n=ledger.name: client.flush(n),
                lambda n=ledger.name: _reload(client, n),
            ):
                self._until(lambda prepare=prepare: self.findings.call("end", lambda: prepare() or True), "a flush")
                for what in ("search", "search and fetch", "query", "count"):
                    self._until(lambda c=checking, what=what: c.check(what), f"{what} after the last fault")

    def _until(self, action: Callable[[], Any], what: str) -> None:
        deadline_s = time.monotonic() + END_S_MAX
        while not action():
            if time.monotonic() > deadline_s:
                self.findings.anomaly(f"no {what} within {END_S_MAX:g} s")
                return
            time.sleep(0.2)


def _reload(client: MilvusClient, name: str) -> None:
    client.release_collection(name)
    client.load_collection(name)


def _runs(keys: range, length: int) -> Iterator[range]:
    return (keys[start : start + length] for start in range(0, len(keys), length))


def _report(findings: Findings, defects: list[str]) -> None:
    say(f"\ncalls    {dict(findings.calls)}")
    say(f"faults   {dict(findings.faults)}")
    took_s, call = findings.slowest
    say(f"slowest  {took_s:.1f} s: {call}; late effects of failed writes: {findings.late}")
    for what, count in sorted(findings.failed.items()):
        say(f"failed   {count:4} x {what}")
    for line in defects[:20]:
        say(f"defect   {line}")
    say(f"{len(findings.anomalies)} anomalies, {len(defects)} defects in the log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on [60]")
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--proxies", type=int, default=2)
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--keys", type=int, default=600, help="of each collection [600]")
    parser.add_argument("--faults", default="kill,pause,join,flush,load,ddl", help="kinds, comma-separated [all]")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between faults, on average [2]")
    parser.add_argument("--grace", type=float, default=300.0, help="builder.garbage_grace_s [300]")
    parser.add_argument("--keep", action="store_true", help="keep the folder even without anomalies")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mishards-chaos-"))
    cluster = Cluster(folder, arguments)
    run = Run(cluster, arguments)
    try:
        cluster.wait()
        run.go()
    finally:
        cluster.stop()
    defects = cluster.defects()
    _report(run.findings, defects)
    if run.findings.anomalies or defects or arguments.keep:
        say(f"log: {cluster.log}")
    else:
        shutil.rmtree(folder)
    return 1 if run.findings.anomalies or defects else 0


if __name__ == "__main__":
    sys.exit(main())
