"""What happened, for the report, and line by line (JSON) in a file for whoever must explain a violation.

Times in the file are seconds since the run began. A call's line has its kind, collection, level, number (of a write),
beginning, end and error; a fault's line what was done to whom; a violation's the whole story of the keys.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.census.ledger import Op

CALL_S_MAX = 20.0  # what clients set as their deadline; longer than any pause
HANGING_S = 5.0  # so long after its deadline a call counts as hanging
METADATA = "metadata"  # in the kinds of its faults, and in errors
RECOVERY_S = 8.0  # so long after a fault is mended a failure is still put down to it


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client. `group` says which promise it rests on: write, Strong or other reads."""

    what: str
    collection: str
    group: str
    began_s: float
    ended_s: float
    error: str = ""


@dataclass(slots=True, eq=False)
class Fault:
    """Something done to the cluster. `ended_s` is when it was mended: the process is ready again, or resumed."""

    kind: str
    target: str
    began_s: float
    ended_s: float | None = None

    def touches(self, began_s: float, ended_s: float, recovery_s: float = RECOVERY_S) -> bool:
        """Whether it may explain a failure of a call that took that time."""
        return self.began_s <= ended_s and (self.ended_s is None or self.ended_s + recovery_s >= began_s)


@dataclass
class History:
    """Everything that happened. All threads write to it."""

    path: Path
    began_s: float = field(default_factory=time.monotonic)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    late: dict[int, Op] = field(default_factory=dict)  # failed writes that took effect after a later one, by number
    lost: list[tuple[str, int, int]] = field(default_factory=list)  # acknowledged: collection, key, number

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._file = self.path.open("w", buffering=1)

    def call(self, what: str, collection: str, group: str, action: Callable[[], Any], **details: Any) -> Any:
        """The call's result; None after a failure. Being late, or failing while nothing is wrong, is a violation."""
        began_s = time.monotonic()
        result, error = None, ""
        try:
            result = action()
        except Exception as failure:
            error = _told(failure)
        call = Call(what, collection, group, began_s, time.monotonic(), error)
        with self._lock:
            self.calls.append(call)
        self._write("call", call.began_s, call.ended_s, what=what, collection=collection, error=error, **details)
        self._check(call)
        return result

    def _check(self, call: Call) -> None:
        took_s = call.ended_s - call.began_s
        if took_s > CALL_S_MAX + HANGING_S:
            self.blame(f"{call.what} {call.collection} hangs: {took_s:.1f} s, deadline {CALL_S_MAX:g} s")
        if call.error and self.explanation(call) is None:
            self.blame(f"{call.what} {call.collection} failed without a fault after {took_s:.1f} s: {call.error}")

    def explanation(self, call: Call) -> Fault | None:
        """The fault nearest before a failure; one of the metadata service if that is what the error names."""
        with self._lock:
            near = [fault for fault in self.faults if fault.touches(call.began_s, call.ended_s)]
        named = METADATA if f"{METADATA} service" in call.error else ""
        return max(near, key=lambda fault: (bool(named) and named in fault.kind, fault.began_s), default=None)

    def is_calm(self, since_s: float, what: str) -> bool:
        """Whether no fault whose kind contains `what` has been near since then."""
        with self._lock:
            return not any(what in fault.kind and fault.touches(since_s, time.monotonic()) for fault in self.faults)

    def begin(self, kind: str, target: str) -> Fault:
        fault = Fault(kind, target, time.monotonic())
        with self._lock:
            self.faults.append(fault)
        self._write("fault", fault.began_s, None, what=kind, target=target)
        return fault

    def end(self, fault: Fault) -> None:
        fault.ended_s = time.monotonic()
        self._write("mended", fault.began_s, fault.ended_s, what=fault.kind, target=fault.target)

    def blame(self, text: str) -> None:
        with self._lock:
            self.violations.append(text)
        now_s = time.monotonic()
        self._write("violation", now_s, now_s, text=text)

    def took_effect_late(self, op: Op) -> None:
        if op.number not in self.late:
            self.late[op.number] = op
            now_s = time.monotonic()
            self._write("late", now_s, now_s, number=op.number, what=op.what)

    def _write(self, event: str, began_s: float, ended_s: float | None, **details: Any) -> None:
        line: dict[str, Any] = {"event": event, "began_s": round(began_s - self.began_s, 3)}
        if ended_s is not None:
            line["ended_s"] = round(ended_s - self.began_s, 3)
        text = json.dumps(line | details)
        with self._lock:
            self._file.write(text + "\n")

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _told(error: Exception) -> str:
    message = str(getattr(error, "message", error)).replace("\n", " ")
    return f"{type(error).__name__} ({getattr(error, 'code', '')}) {message[:400]}"
