"""The census that `chaos.py` takes: what was written, what may be found, and those who write and check all the time."""

from __future__ import annotations

import collections
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pymilvus import MilvusClient

DIM = 8
CALL_S_MAX = 30.0  # a call that took longer counts as hanging
BATCH_MAX = 20  # rows of one write


# ---------------------------------------------------------------------------------------------------- what should be


@dataclass(slots=True)
class Op:
    """One write: rows of `number` under `keys`, or their deletion. Times are monotonic."""

    number: int
    keys: tuple[int, ...]
    deletes: bool
    began_s: float
    acknowledged_s: float | None = None  # None: in progress, or failed, which may mean anything


@dataclass
class Ledger:
    """The writes to one collection, by key in the order in which the key's only writer issued them."""

    name: str
    shards: int
    steady: range
    flickering: range
    ops: dict[int, list[Op]] = field(default_factory=lambda: collections.defaultdict(list))
    by_number: dict[int, Op] = field(default_factory=dict)

    def issue(self, op: Op) -> None:
        self.by_number[op.number] = op
        for key in op.keys:
            self.ops[key].append(op)

    def candidates(self, key: int, began_s: float) -> tuple[list[Op], list[Op]]:
        """What a Strong read that began then may find of a key: the last write acknowledged before and all later ones;
        and, less likely, earlier ones of unknown outcome, which may have happened late."""
        ops = list(self.ops.get(key, ()))
        last = max((i for i, op in enumerate(ops) if _before(op, began_s)), default=0)
        return ops[last:], [op for op in ops[:last] if op.acknowledged_s is None]


def _before(op: Op, moment_s: float) -> bool:
    """Whether the write was acknowledged by then."""
    return op.acknowledged_s is not None and op.acknowledged_s <= moment_s


@dataclass
class Findings:
    """What the run counts, and what it holds against the cluster."""

    calls: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    late: int = 0  # writes of unknown outcome that took effect after a later one of their key
    slowest: tuple[float, str] = (0.0, "")  # seconds, call
    anomalies: list[str] = field(default_factory=list)

    def call(self, what: str, action: Callable[[], Any]) -> Any:
        """The result, None after a failure, which is counted; slowness beyond all limits is an anomaly."""
        began_s = time.monotonic()
        self.calls[what] += 1
        try:
            return action()
        except Exception as error:
            self.failed[f"{what}: {type(error).__name__} {_kind(error)}"] += 1
            return None
        finally:
            took_s = time.monotonic() - began_s
            self.slowest = max(self.slowest, (took_s, what))
            if took_s > CALL_S_MAX + 5.0:
                self.anomaly(f"{what} took {took_s:.1f} s")

    def anomaly(self, text: str) -> None:
        text = f"{time.strftime('%H:%M:%S')} {text}"
        self.anomalies.append(text)
        say(f"ANOMALY {text}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _kind(error: Exception) -> str:
    message = str(getattr(error, "message", error))
    return f"({getattr(error, 'code', '')}) {message[:90]}"


@dataclass
class Shared:
    """What those who work at once share."""

    seed: int
    connect: Callable[[], MilvusClient]
    findings: Findings = field(default_factory=Findings)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))  # of writes
    stop: threading.Event = field(default_factory=threading.Event)


# -------------------------------------------------------------------------------------------------------- the workload


class Writing(threading.Thread):
    """The only writer of every `of`-th key."""

    def __init__(self, shared: Shared, ledger: Ledger, slot: int, of: int) -> None:
        super().__init__(daemon=True)
        self._shared = shared
        self._ledger = ledger
        self._random = random.Random(f"{shared.seed}/{ledger.name}/{slot}")
        self.steady = [key for key in ledger.steady if key % of == slot]
        self._flickering = [key for key in ledger.flickering if key % of == slot]
        self._client = shared.connect()

    def run(self) -> None:
        while not self._shared.stop.is_set():
            self.step()
            time.sleep(self._random.uniform(0.0, 0.1))

    def step(self) -> None:
        dice = self._random.random()
        mine = self.steady if dice < 0.6 else self._flickering
        keys = self._random.sample(mine, self._random.randint(1, min(BATCH_MAX, len(mine))))
        if dice < 0.6:
            self.write("upsert", tuple(keys))
        elif dice < 0.8:
            self.write("insert", tuple(keys))
        elif dice < 0.9:
            self.write("delete", tuple(keys))
        else:
            self.write("delete by filter", tuple(keys))

    def write(self, what: str, keys: tuple[int, ...]) -> bool:
        name = self._ledger.name
        op = Op(next(self._shared.numbers), keys, what.startswith("delete"), time.monotonic())
        rows = [{"id": key, "vector": self._vector(), "number": op.number} for key in keys]
        self._ledger.issue(op)
        actions: dict[str, Callable[[], Any]] = {
            "upsert": lambda: self._client.upsert(name, rows),
            "insert": lambda: self._client.insert(name, rows),
            "delete": lambda: self._client.delete(name, ids=list(keys)),
            "delete by filter": lambda: self._client.delete(name, filter=f"id in {list(keys)} and number >= 0"),
        }
        if self._shared.findings.call(what, actions[what]) is None:
            return False
        op.acknowledged_s = time.monotonic()
        return True

    def _vector(self) -> list[float]:
        return [self._random.uniform(-1, 1) for _ in range(DIM)]


class Checking(threading.Thread):
    """One client session at one consistency level that reads everything, again and again."""

    def __init__(self, shared: Shared, ledger: Ledger, level: str) -> None:
        super().__init__(daemon=True)
        self._shared = shared
        self._ledger = ledger
        self._level = level
        self._client = shared.connect()
        self._limit = len(ledger.steady) + len(ledger.flickering) + 10
        self._seen: dict[int, int] = {}  # by key: no later read of this session may find an earlier write
        self._random = random.Random(f"{shared.seed}/{ledger.name}/{level}")

    def run(self) -> None:
        while not self._shared.stop.is_set():
            self.check(self._random.choice(("search", "search", "search and fetch", "query", "count")))
            time.sleep(self._random.uniform(0.0, 0.15))

    def check(self, what: str) -> bool:
        """Read once and judge the answer; False when there was none."""
        began_s = time.monotonic()
        name, level = self._ledger.name, self._level
        if what == "count":
            rows = self._call(
                what, lambda: self._client.query(name, output_fields=["count(*)"], consistency_level=level)
            )
            if rows is not None and level == "Strong":
                self._judge_count(rows[0]["count(*)"], began_s)
            return rows is not None
        if what == "query":
            rows = self._call(
                what,
                lambda: self._client.query(
                    name, filter="id >= 0", limit=self._limit, output_fields=["number"], consistency_level=level
                ),
            )
            found = None if rows is None else [(row["id"], row["number"]) for row in rows]
        else:
            fields = ["number", "vector"] if what == "search and fetch" else ["number"]
            hits = self._call(what, lambda: self._search(fields))
            found = None if hits is None else [(hit["id"], hit["entity"]["number"]) for hit in hits]
        if found is None:
            return False
        self._judge(f"{what} {name} {level}", found, began_s)
        return True

    def _search(self, fields: list[str]) -> Any:
        return self._client.search(
            self._ledger.name,
            [[0.0] * DIM],
            limit=self._limit,
            output_fields=fields,
            search_params={"params": {"ef": 2 * self._limit}},
            consistency_level=self._level,
        )[0]

    def _call(self, what: str, action: Callable[[], Any]) -> Any:
        return self._shared.findings.call(f"{what} {self._level}", action)

    # ------------------------------------------------------------------------------------------------------ judging

    def _judge(self, what: str, found: list[tuple[int, int]], began_s: float) -> None:
        numbers = dict(found)
        if len(numbers) < len(found):
            twice = [key for key, n in collections.Counter(key for key, _ in found).items() if n > 1]
            self._anomaly(f"{what}: {len(twice)} keys twice", twice, began_s, numbers)
        missing = [key for key in self._ledger.steady if key not in numbers]
        if missing:
            self._anomaly(f"{what}: {len(missing)} steady keys missing", missing, began_s, numbers)
        strangers = [key for key in numbers if key not in self._ledger.steady and key not in self._ledger.flickering]
        if strangers:
            self._anomaly(f"{what}: keys never written", strangers, began_s, numbers)
        wrong = [key for key in self._ledger.flickering if key not in numbers and not self._may_miss(key, began_s)]
        if wrong:
            self._anomaly(f"{what}: {len(wrong)} keys wrongly absent", wrong, began_s, numbers)
        wrong = [key for key in numbers if not self._may_find(key, numbers[key], began_s)]
        if wrong:
            self._anomaly(f"{what}: {len(wrong)} keys of a wrong write", wrong, began_s, numbers)
        if self._ledger.shards == 1:
            self._judge_wholeness(what, numbers, began_s)

    def _may_find(self, key: int, number: int, began_s: float) -> bool:
        sure, _ = self._candidates(key, began_s)
        if any(op.number == number and not op.deletes for op in sure) and number >= self._seen.get(key, 0):
            self._seen[key] = number
            return True
        op = self._ledger.by_number.get(number)
        late = op is not None and key in op.keys and not op.deletes and op.acknowledged_s is None
        self._shared.findings.late += late
        return late

    def _may_miss(self, key: int, began_s: float) -> bool:
        sure, late = self._candidates(key, began_s)
        seen = self._seen.get(key, 0)
        if seen == 0 and (
            not sure
            or (
                sure[0] is self._ledger.ops[key][0]
                and not _before(sure[0], began_s if self._level == "Strong" else 0.0)
            )
        ):
            return True  # nothing was written yet
        deletes = [op.number for op in sure if op.deletes and op.number >= seen]
        if deletes:
            self._seen[key] = min(deletes)
            return True
        unknown = any(op.deletes and op.acknowledged_s is None for op in (*late, *sure))
        self._shared.findings.late += unknown
        return unknown

    def _candidates(self, key: int, began_s: float) -> tuple[list[Op], list[Op]]:
        return self._ledger.candidates(key, began_s if self._level == "Strong" else 0.0)

    def _judge_wholeness(self, what: str, numbers: dict[int, int], began_s: float) -> None:
        """Who sees one row of a write sees all of it, or newer rows (one shard: one commit)."""
        for number in set(numbers.values()):
            op = self._ledger.by_number[number]
            torn = [key for key in op.keys if key in numbers and numbers[key] < number]
            torn += [
                key
                for key in op.keys
                if key not in numbers and not any(o.deletes and o.number > number for o in self._ledger.ops[key])
            ]
            torn = [key for key in torn if numbers.get(key) is None or not self._is_unknown(numbers[key])]
            if torn:
                self._anomaly(f"{what}: write {number} torn", torn, began_s, numbers)

    def _is_unknown(self, number: int) -> bool:
        return self._ledger.by_number[number].acknowledged_s is None

    def _judge_count(self, count: int, began_s: float) -> None:
        least = most = len(self._ledger.steady)
        for key in self._ledger.flickering:
            sure, late = self._ledger.candidates(key, began_s)
            possible = {not op.deletes for op in (*sure, *late)}
            if not sure or (sure[0] is self._ledger.ops[key][0] and not _before(sure[0], began_s)):
                possible.add(False)
            most += True in possible
            least += False not in possible
        if not least <= count <= most:
            self._shared.findings.anomaly(f"count {self._ledger.name} Strong: {count}, not {least} to {most}")

    def _anomaly(self, text: str, keys: list[int], began_s: float, numbers: dict[int, int]) -> None:
        now_s = time.monotonic()
        lines = [text]
        for key in keys[:3]:
            told = [
                f"{op.number}{'-' if op.deletes else '+'} began {op.began_s - now_s:+.2f} acknowledged "
                + ("never" if op.acknowledged_s is None else f"{op.acknowledged_s - now_s:+.2f}")
                for op in self._ledger.ops[key][-6:]
            ]
            lines.append(f"  key {key}: found {numbers.get(key)}, seen {self._seen.get(key)}, writes {told}")
        lines.append(f"  read began {began_s - now_s:+.2f}; all such keys: {keys[:40]}")
        self._shared.findings.anomaly("\n".join(lines))
