"""One run from start to verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pymilvus import MilvusClient

from tools.census.faults import Faults
from tools.census.history import CALL_S_MAX, HANGING_S, History
from tools.census.housekeeping import Housekeeping
from tools.census.ledger import Ledger
from tools.census.nodes import Cluster
from tools.census.workload import LEVELS, Reading, Shared, Writing, make_collection

WRITERS = 2  # threads of a collection
STEADY_SHARE = 0.7  # of the keys are only replaced; the others are deleted and inserted again
LARGE_DIM = 512  # a shard's 1,200 rows are then enough for an index
INDEX = {"index_type": "HNSW", "params": {"M": 8, "efConstruction": 40}}
END_S_MAX = 60.0  # for each check after the last fault


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be."""

    seed: int
    keys: int  # of the larger collection
    seconds: float  # of faults
    kinds: list[str]
    pause_s: float


class Crew:
    """Those who write and read one collection."""

    def __init__(self, shared: Shared, ledger: Ledger) -> None:
        self.ledger = ledger
        self.writing = [Writing(shared, ledger, slot, WRITERS) for slot in range(WRITERS)]
        self.reading = [Reading(shared, ledger, level) for level in LEVELS]

    @property
    def threads(self) -> list[threading.Thread]:
        return [*self.writing, *self.reading]

    @property
    def strong(self) -> Reading:
        return self.reading[LEVELS.index("Strong")]


def census(cluster: Cluster, history: History, plan: Plan, say: Callable[[str], None]) -> None:
    """Fill, disturb for so many seconds, mend everything, and count again."""
    shared = Shared(plan.seed, cluster.client, history)
    small = Ledger("small", shards=1, dim=8, keys=max(plan.keys // 5, 100), steady_share=STEADY_SHARE)
    large = Ledger("large", shards=2, dim=LARGE_DIM, keys=plan.keys, steady_share=STEADY_SHARE)
    client = cluster.client()
    make_collection(client, small, {"index_type": "FLAT"}, replicas=1)
    make_collection(client, large, INDEX, replicas=2)
    crews = [Crew(shared, ledger) for ledger in (small, large)]
    for writing in (writing for crew in crews for writing in crew.writing):
        if not writing.fill():
            raise SystemExit(f"the first writes failed: {history.violations}")
    faults = Faults(history, cluster, plan.seed, plan.kinds, plan.pause_s)
    threads = [*crews[0].threads, *crews[1].threads, Housekeeping(shared, [small, large])]
    for thread in (*threads, faults):
        thread.start()
    _watch(history, plan.seconds, say)
    say("mending everything")
    faults.stop.set()
    faults.join()
    shared.stop.set()
    for thread in threads:
        thread.join(CALL_S_MAX + HANGING_S)
        if thread.is_alive():
            history.blame(f"{thread.name} hangs")
    for crew in crews:
        say(f"counting {crew.ledger.name}")
        _judge_the_end(client, history, crew)


def _watch(history: History, seconds: float, say: Callable[[str], None]) -> None:
    """Tell each new fault and violation, until the time is over."""
    ends_s = time.monotonic() + seconds
    told_faults = told_violations = 0
    while time.monotonic() < ends_s:
        time.sleep(0.5)
        for fault in history.faults[told_faults:]:
            say(f"{fault.began_s - history.began_s:6.1f} s  {fault.kind}  {fault.target}")
            told_faults += 1
        for text in history.violations[told_violations:]:
            say(f"VIOLATION {text}")
            told_violations += 1


def _judge_the_end(client: MilvusClient, history: History, crew: Crew) -> None:
    """All is as acknowledged: as it lies there, after a flush, after a compaction, and loaded anew."""
    name = crew.ledger.name
    _until(history, crew.writing[0].touch, f"write to {name}")
    _count(history, crew)
    for steps in ((client.flush,), (client.compact,), (client.release_collection, client.load_collection)):
        for step in steps:
            what = step.__name__
            _until(history, partial(_succeeds, history, what, name, partial(step, name)), f"{what} of {name}")
        _count(history, crew)


def _count(history: History, crew: Crew) -> None:
    name = crew.ledger.name
    for what in ("search", "search and fetch", "count", "query"):
        _until(history, partial(crew.strong.read, what), f"{what} of {name}")
        lost = [(name, key, op.number) for key, op in crew.ledger.lost(crew.strong.last)]
        history.lost += [loss for loss in lost if loss not in history.lost]


def _succeeds(history: History, what: str, name: str, action: Callable[[], Any]) -> bool:
    return history.call(what, name, "housekeeping", lambda: (action(),)) is not None


def _until(history: History, action: Callable[[], Any], what: str) -> None:
    ends_s = time.monotonic() + END_S_MAX
    while not action():
        if time.monotonic() > ends_s:
            history.blame(f"no {what} within {END_S_MAX:g} s after the last fault")
            return
        time.sleep(0.2)
