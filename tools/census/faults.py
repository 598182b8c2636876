"""What happens to the cluster: processes and the SQL server are killed, paused, stopped and joined, as the seed draws.

Faults come in bursts, in which they overlap. After each burst everything is mended, and a calm follows in which nothing
may fail any more. The seed decides what happens and when, though not to the microsecond.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tools.census.history import RECOVERY_S, Fault, History
from tools.census.nodes import Cluster, Node

ROLES = ("reader", "writer", "builder", "proxy")
BURST = (4, 8)  # faults
CALM_S = 4.0
KILLED_S = (0.2, 4.0)  # until it is started again
PAUSED_S = ((0.2, 2.0), (2.0, 15.0))  # shorter than the writers' lease, and longer: half of each
SQL_PAUSED_S = (0.5, 6.0)
RESTART_S = 0.5  # after a start that failed
JOINED_S = (3.0, 20.0)  # until it leaves
KINDS = (
    *(f"{what} {role}" for what in ("kill", "pause", "stop") for role in ROLES),
    *("join reader", "join writer", "kill metadata", "pause metadata"),
)
NEEDED = {"reader": 1, "proxy": 1}  # that many have no fault: without any, nothing could be answered
WEIGHTS = {"kill metadata": 3, "pause metadata": 2, "kill writer": 2, "pause writer": 2, "kill reader": 2}  # others: 1


class Faults(threading.Thread):
    """Draws one fault after the other, and mends each some time later."""

    def __init__(self, history: History, cluster: Cluster, seed: int, kinds: list[str], pause_s: float) -> None:
        super().__init__(name="faults", daemon=True)
        self._history = history
        self._cluster = cluster
        self._random = random.Random(f"{seed}/faults")
        self._kinds = [kind for kind in kinds if cluster.sql is not None or "metadata" not in kind]
        self._weights = [WEIGHTS.get(kind, 1) for kind in self._kinds]
        self._pause_s = pause_s
        self._mending: list[threading.Thread] = []
        self._touched: set[str] = set()  # nodes, and the metadata service, that have a fault now
        self._joined = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while self._kinds and not self.stop.wait(self._random.uniform(0.0, self._pause_s)):
            for _ in range(self._random.randint(*BURST)):
                self._cause(self._random.choices(self._kinds, self._weights)[0])
                if self.stop.wait(self._random.uniform(0.2, 2 * self._pause_s)):
                    break
            self._mend_all()
            self.stop.wait(RECOVERY_S + CALM_S)
        self._mend_all()

    def _mend_all(self) -> None:
        for thread in self._mending:
            thread.join()
        self._mending.clear()

    def _cause(self, kind: str) -> None:
        what, _, whom = kind.partition(" ")
        if whom == "metadata":
            self._disturb_metadata(what)
        elif what == "join":
            self._join(whom)
        else:
            whole = [node for node in self._cluster.running(whom) if node.name not in self._touched]
            if len(whole) > NEEDED.get(whom, 0):
                self._disturb(what, self._random.choice(whole))

    # ----------------------------------------------------------------------------------------------------- one fault

    def _disturb(self, what: str, node: Node) -> None:
        fault = self._history.begin(f"{what} {node.role}", node.name)
        if what == "kill":
            node.kill()
            self._later(fault, self._random.uniform(*KILLED_S), lambda: self._revive(node))
        elif what == "stop":
            pause_s = self._random.uniform(*KILLED_S)
            self._later(fault, 0.0, lambda: self._stop_and_revive(node, pause_s))
        else:
            node.send(signal.SIGSTOP)
            pause_s = self._random.uniform(*self._random.choice(PAUSED_S))
            self._later(fault, pause_s, lambda: node.send(signal.SIGCONT))

    def _revive(self, node: Node) -> None:
        """Start it until it is ready, as a supervisor does: without the metadata service no node can start. A process
        that is paused amid a transaction makes the others wait for SQLite."""
        outage = "metadata" if self._cluster.sql else "pause"
        while True:
            began_s = time.monotonic()
            node.start()
            if node.wait():
                return
            if self._history.is_calm(began_s, outage):
                self._history.blame(f"{node.name} did not start:\n{node.log.read_text()[-2000:]}")
                return
            time.sleep(RESTART_S)

    def _stop_and_revive(self, node: Node, pause_s: float) -> None:
        self._terminate(node)
        time.sleep(pause_s)
        self._revive(node)

    def _terminate(self, node: Node) -> None:
        if not node.stop():
            self._history.blame(f"{node.name} did not end after SIGTERM:\n{node.log.read_text()[-2000:]}")

    def _join(self, role: str) -> None:
        """A node more; it leaves again, by SIGTERM or kill -9."""
        self._joined += 1
        node = self._cluster.add(f"{role}-joined-{self._joined}", role)
        self._touched.add(node.name)  # nothing else happens to it
        leave, kill = self._random.uniform(*JOINED_S), self._random.random() < 0.3
        fault = self._history.begin(f"join {role}", node.name)

        def live() -> None:
            self._revive(node)
            self._history.end(fault)
            time.sleep(leave)
            leaving = self._history.begin(f"{'kill' if kill else 'stop'} {role}", node.name)
            node.kill() if kill else self._terminate(node)
            self._history.end(leaving)

        self._in_background(live)

    def _disturb_metadata(self, what: str) -> None:
        sql = self._cluster.sql
        if sql is None or "metadata" in self._touched:
            return
        fault = self._history.begin(f"{what} metadata", "metadata")
        if what == "kill":
            sql.kill()
            self._later(fault, self._random.uniform(*KILLED_S), sql.start)
        else:
            sql.pause()
            self._later(fault, self._random.uniform(*SQL_PAUSED_S), sql.resume)

    def _later(self, fault: Fault, pause_s: float, mend: Callable[[], object]) -> None:
        self._touched.add(fault.target)

        def wait_and_mend() -> None:
            time.sleep(pause_s)
            with suppress(ProcessLookupError):
                mend()
            self._touched.discard(fault.target)
            self._history.end(fault)

        self._in_background(wait_and_mend)

    def _in_background(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        self._mending.append(thread)
