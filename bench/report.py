"""The results as a page: ratios first, then the figures behind them. Ratios are "times better than Milvus"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import plot
from bench.results import Results
from bench.systems import TITLES

MILVUS, MISHARDS = "milvus", ("standalone", "cluster")
SYSTEMS = (*MISHARDS, MILVUS)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the main table: one figure of one row."""

    title: str
    row: str
    figure: str
    shown: Callable[[float], str]
    more_is_better: bool = True


def per_s(value: float) -> str:
    return f"{value:,.0f}/s"


def seconds(value: float) -> str:
    return f"{value:.3g} s"


def ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def mib(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


MAIN = (
    Line("QPS, nq=1, 1 worker", "nq=1, 1 worker", "qps", per_s),
    Line("QPS, nq=1, 4 workers", "nq=1, 4 workers", "qps", per_s),
    Line("QPS, nq=1, 16 workers", "nq=1, 16 workers", "qps", per_s),
    Line("queries/s, nq=100, 1 worker", "nq=100, 1 worker", "qps", per_s),
    Line("queries/s, nq=100, 4 workers", "nq=100, 4 workers", "qps", per_s),
    Line("QPS, filter passes 50 %, 4 workers", "filter 50 %, 4 workers", "qps", per_s),
    Line("QPS, filter passes 10 %, 4 workers", "filter 10 %, 4 workers", "qps", per_s),
    Line("QPS, filter passes 1 %, 4 workers", "filter 1 %, 4 workers", "qps", per_s),
    Line("p50, nq=1, 1 worker", "nq=1, 1 worker", "p50_ms", ms, more_is_better=False),
    Line("p50, Strong, 1 worker", "Strong, 1 worker", "p50_ms", ms, more_is_better=False),
    Line("insert", "insert", "rows_s", lambda value: f"{value:,.0f} rows/s"),
    Line("last insert to searchable", "searchable", "seconds", seconds, more_is_better=False),
    Line("last insert to indexed", "indexed", "seconds", seconds, more_is_better=False),
    Line("start to first right answer", "restart", "seconds", seconds, more_is_better=False),
    Line("peak memory, loading", "memory, loading", "bytes", mib, more_is_better=False),
    Line("peak memory, searching", "memory, searching", "bytes", mib, more_is_better=False),
)


def write(found: Results, folder: Path, name: str) -> None:
    """`{name}.json`, `{name}.md` and, of a main table with Milvus in it, `{name}.svg`."""
    found.write(folder / f"{name}.json")
    drawn = plot.draw(found, folder / f"{name}.svg")
    (folder / f"{name}.md").write_text(page(found, f"{name}.svg" if drawn else None))


def page(found: Results, picture: str | None) -> str:
    machine, versions = found.about["machine"], found.about["versions"]
    parts = [
        "# Results",
        f"{found.about['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}. " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "Clients run on the same cores as the servers. Every system has the same data, client (pymilvus), index "
        f"({found.about['settings']['index']}, {_pairs(found.about['settings']['build'])}) and search "
        f"({_pairs(found.about['settings']['search'])}, limit {found.about['settings']['limit']}), at Bounded "
        f"consistency where nothing else is said. Figures and ratios are medians of "
        f"{found.about['settings']['rounds']} rounds, on real data of {found.about['settings']['rounds_real']}; in a "
        "round, each load is put on one system after the other within seconds.",
    ]
    if picture:
        parts.append(f"![Searches a second, Milvus = 1]({picture})")
    for make in (_main, _points, _inserting, _readers, _collections, _overhead, _indexes):
        parts += make(found)
    if found.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in dict.fromkeys(found.notes))]
    return "\n\n".join(parts) + "\n"


def _pairs(parameters: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(found: Results, data: str, line: Line) -> dict[str, float]:
    """Times better than Milvus, by system; without the systems that were not measured."""
    found_by_system = {
        system: found.ratio("serving", data, line.row, line.figure, (system, MILVUS)) for system in MISHARDS
    }
    return {system: ratio if line.more_is_better else 1 / ratio for system, ratio in found_by_system.items() if ratio}


# ------------------------------------------------------------------------------------------------------------ sections


def _main(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("serving"):
        systems = [system for system in SYSTEMS if system in found.systems("serving", data)]
        ours = [system for system in systems if system in MISHARDS and MILVUS in systems]
        head = ["", *[f"{TITLES[system]} / Milvus" for system in ours], *[TITLES[system] for system in systems]]
        rows = []
        for line in MAIN:
            values = [found.figures("serving", data, system, line.row).get(line.figure) for system in systems]
            if any(value is not None for value in values):
                better = ratios(found, data, line)
                rows.append([line.title, *[_times(better.get(system)) for system in ours], *_all(values, line.shown)])
        if rows:
            parts += [f"## {data}: times better than Milvus", table(head, rows)]
    return parts


def _points(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("serving"):
        rows = []
        for row in found.rows("serving", data):
            for system in SYSTEMS:
                f = found.figures("serving", data, system, row)
                if "qps" in f:
                    cells = [per_s(f["qps"]), ms(f["p50_ms"]), ms(f["p99_ms"]), f"{f['recall']:.3f}"]
                    cost = [ms(f["server_cpu_ms"]), ms(f["client_cpu_ms"]), f"{f['errors'] + f['wrong']:.0f}"]
                    rows.append([row, TITLES[system], *cells, *cost])
        head = ["", "system", "queries", "p50", "p99", "recall@10", "server CPU", "client CPU", "errors"]
        if rows:
            parts += [f"## {data}: loads, in full", "CPU: processor time of one request.", table(head, rows)]
    return parts


def _inserting(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("inserting"):
        rows = []
        for system in SYSTEMS:
            idle, busy, inserts = (
                found.figures("inserting", data, system, row) for row in ("idle", "inserting", "inserts")
            )
            if busy:
                kept = [f"{busy['qps'] / idle['qps']:.0%}", f"{busy['p99_ms'] / idle['p99_ms']:.2f}"]
                speed = [per_s(idle["qps"]), per_s(busy["qps"]), ms(idle["p99_ms"]), ms(busy["p99_ms"])]
                rest = [f"{inserts['rows_s']:,.0f}/s", f"{inserts['client_cpu']:.0%}"]
                rest.append(f"{busy['errors'] + inserts['errors']:.0f}")
                rows.append([TITLES[system], *kept, *speed, *rest])
        head = ["4 workers", "QPS kept", "p99 ratio", "QPS idle", "QPS", "p99 idle", "p99", "rows inserted"]
        more = ["inserting client's CPU", "errors"]
        parts += [f"## {data}: searching while inserting", table([*head, *more], rows)]
    return parts


def _readers(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("readers"):
        counts = found.systems("readers", data)
        rows = []
        for row in found.rows("readers", data):
            for figure, shown in (("qps", per_s), ("p50_ms", ms), ("seconds", seconds), ("bytes", mib)):
                values = [found.figures("readers", data, count, row).get(figure) for count in counts]
                if any(value is not None for value in values):
                    rows.append([f"{row}: {figure.partition('_')[0]}", *_all(values, shown)])
        heads = ["1 proxy and", *[f"{count} reader{'s' * (count != '1')}" for count in counts]]
        parts += [f"## {data}: readers", table(heads, rows)]
    return parts


def _collections(found: Results) -> list[str]:
    rows = []
    for row in sorted(found.rows("collections", ""), key=int):
        for system in SYSTEMS:
            f = found.figures("collections", "", system, row)
            if f:
                cells = [f"{f['create_s'] * 1e3:,.0f} ms", mib(f["bytes"]), per_s(f["qps"]), ms(f["p50_ms"])]
                rows.append([f"{int(row):,}", TITLES[system], *cells, ms(f["p99_ms"]), f"{f['errors']:.0f}"])
    head = ["collections", "system", "to create one", "memory", "QPS, 4 workers", "p50", "p99", "errors"]
    return ["## Many collections", table(head, rows)] if rows else []


def _overhead(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("overhead"):
        index = found.figures("indexes", data, "HNSW", "index").get("search_ms")
        rows = []
        for system in SYSTEMS:
            f = found.figures("overhead", data, system, "latency")
            if f:
                own = None if index is None else f["grpc_ms"] - index
                hop = None if own is None else own - f["nothing_ms"]
                values = [f["pymilvus_ms"], f["grpc_ms"], f["nothing_ms"], index, own, hop]
                rows.append([TITLES[system], *_all(values, ms)])
        head = ["p50, 1 client", "pymilvus", "bare gRPC", "empty call", "index alone", "gRPC - index", "and - empty"]
        parts += [f"## {data}: where latency goes", table(head, rows)]
    return parts


def _indexes(found: Results) -> list[str]:
    parts = []
    for data in found.datasets("indexes"):
        rows = []
        for kind in found.systems("indexes", data):
            f = found.figures("indexes", data, kind, "index")
            size = [seconds(f["build_s"]), mib(f["bytes"]), f"{f['bytes_row']:,.0f}"]
            size += [f"{f['bytes_to_raw']:.2f}", f"{f['resident_to_raw']:.2f}"]
            wide = [_at(f, target) for target in ("0.95", "0.99")]
            recalls = [f"{f[name]:.3f}" for name in ("recall_100", "recall_k100", "recall_50", "recall_10", "recall_1")]
            rows.append([kind, *size, *wide, per_s(f["qps"]), *recalls])
        head = [
            "",
            "build",
            "memory",
            "bytes/vector",
            "of raw",
            "resident of raw",
            "QPS at 0.95",
            "QPS at 0.99",
            "QPS",
            "recall@10",
        ]
        more = ["@100", "filter 50 %", "10 %", "1 %"]
        text = (
            "In process, one query at a time on one core. QPS, recall@10, recall@100 and recall@10 under filters are "
            "at default parameters; behind QPS at a recall is the width (ef, nprobe) that reaches it. Memory: of the "
            "index itself; resident: what the process grew by, with the mapped vectors that searches touched; both "
            "also as a share of the raw vectors."
        )
        parts += [f"## {data}: index kinds", text, table([*head, *more], rows)]
    return parts


def _at(figures: dict[str, float], target: str) -> str:
    if f"qps_{target}" not in figures:
        return "not reached"
    width = figures[f"width_{target}"]
    return per_s(figures[f"qps_{target}"]) + (f" ({width:.0f})" if width else "")


def _times(value: float | None) -> str:
    return "" if value is None else f"**{value:.2f}**"


def _all(values: Sequence[float | None], shown: Callable[[float], str]) -> list[str]:
    return ["" if value is None else shown(value) for value in values]
