"""What came out, as figures (JSON) and as tables."""

from __future__ import annotations

import collections
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.census.history import Call, Fault, History

GROUPS = ("write", "Strong", "read")  # by what they rest on
NO_FAULT = "none"
SHOWN = 30  # lines of a kind


def figures(history: History, defects: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    """Everything that is told, ready for JSON."""
    return {
        **given,
        "seconds_run": round(max((call.ended_s for call in history.calls), default=0.0) - history.began_s, 1),
        "operations": _operations(history.calls),
        "faults": _faults(history),
        "failures": _failures(history),
        "late_effects": sorted(history.late),
        "violations": history.violations,
        "lost_acknowledged_writes": history.lost,
        "defects": list(defects),
        "good": is_good(history, defects),
    }


def is_good(history: History, defects: Sequence[str]) -> bool:
    return not (history.violations or history.lost or defects)


def _operations(calls: Iterable[Call]) -> dict[str, dict[str, Any]]:
    """Calls by kind: how many, how many failed, how long they took (all of them)."""
    by_kind: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        by_kind[call.what].append(call)
    return {
        what: {"calls": len(some), "failed": sum(bool(call.error) for call in some)}
        | _quantiles_ms([call.ended_s - call.began_s for call in some])
        for what, some in sorted(by_kind.items())
    }


def _quantiles_ms(took_s: list[float]) -> dict[str, float]:
    ordered = sorted(took_s)
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(1000 * ordered[int(share * (len(ordered) - 1))], 1) for name, share in shares.items()}


def _faults(history: History) -> dict[str, dict[str, Any]]:
    """Faults by kind: how many, which calls failed nearest to them, and how soon each group worked again."""
    by_kind: dict[str, list[Fault]] = collections.defaultdict(list)
    for fault in history.faults:
        by_kind[fault.kind].append(fault)
    failed = collections.Counter(_near(history, call) for call in history.calls if call.error)
    return {
        kind: {"faults": len(some), "failed_calls": failed[kind]} | _recoveries(history, some)
        for kind, some in sorted(by_kind.items())
    }


def _recoveries(history: History, faults: Sequence[Fault]) -> dict[str, dict[str, float]]:
    """Seconds from a fault to the end of the first good call that began after it, on the slower collection."""
    found = {}
    for group in GROUPS:
        took_s = [seconds for fault in faults if (seconds := _recovery_s(history, fault, group)) is not None]
        if took_s:
            found[group] = {"p50_s": round(statistics.median(took_s), 2), "max_s": round(max(took_s), 2)}
    return found


def _recovery_s(history: History, fault: Fault, group: str) -> float | None:
    ended: dict[str, float] = {}
    for call in history.calls:  # in the order of their ends
        if call.group == group and not call.error and call.began_s >= fault.began_s:
            ended.setdefault(call.collection, call.ended_s)
    return max(ended.values()) - fault.began_s if ended else None


def _near(history: History, call: Call) -> str:
    fault = history.explanation(call)
    return NO_FAULT if fault is None else fault.kind


def _failures(history: History) -> list[dict[str, Any]]:
    """Failed calls by nearest fault, kind and message, the most frequent first."""
    counted = collections.Counter(
        (_near(history, call), call.what, _kind(call.error)) for call in history.calls if call.error
    )
    return [
        {"fault": fault, "call": what, "error": error, "calls": times}
        for (fault, what, error), times in counted.most_common()
    ]


def _kind(error: str) -> str:
    """The message without what differs from case to case."""
    return re.sub(r"[0-9a-f]{8,}|\d+(\.\d+)?", "#", error)[:160]


# -------------------------------------------------------------------------------------------------------------- tables


def show(found: dict[str, Any], console: Console) -> None:
    """The tables, and the verdict last."""
    operations = Table("operation", "calls", "failed", "p50 ms", "p99 ms", "max ms", title="Operations")
    for what, row in found["operations"].items():
        operations.add_row(what, *(f"{row[name]:g}" for name in ("calls", "failed", "p50_ms", "p99_ms", "max_ms")))
    faults = Table("fault", "times", "failed calls", *(f"{group} again, s" for group in GROUPS), title="Faults")
    for kind, row in found["faults"].items():
        again = [f"{row[group]['p50_s']:g} (max {row[group]['max_s']:g})" if group in row else "-" for group in GROUPS]
        faults.add_row(kind, str(row["faults"]), str(row["failed_calls"]), *again)
    failures = Table("near", "call", "times", "error", title="Failed calls, by the nearest fault")
    for row in found["failures"][:SHOWN]:
        failures.add_row(row["fault"], row["call"], str(row["calls"]), row["error"])
    for table in (operations, faults, failures):
        console.print(table)
    for text in found["violations"][:SHOWN]:
        console.print(f"violation: {text}", markup=False)
    for collection, key, number in found["lost_acknowledged_writes"][:SHOWN]:
        console.print(f"lost: key {key} of {collection}, write {number}")
    for line in found["defects"][:SHOWN]:
        console.print(f"defect: {line}", markup=False)
    calls = sum(row["calls"] for row in found["operations"].values())
    failed = sum(row["failed"] for row in found["operations"].values())
    console.print(
        f"{found['metadata']}, seed {found['seed']}: {calls} operations in {found['seconds_run']:g} s, "
        f"{sum(row['faults'] for row in found['faults'].values())} faults, {failed} failed calls, "
        f"{len(found['violations'])} violations, {len(found['lost_acknowledged_writes'])} lost acknowledged writes, "
        f"{len(found['late_effects'])} late effects of failed writes, {len(found['defects'])} defects in logs"
    )
