"""`mishards demo`: a cluster of real processes on this machine, real data, a killed reader and a new one.

The story it tells: load the packages of a Linux distribution through the ordinary Milvus client, ask it questions in
plain words, compare the answers with exact search, show which reader holds what; then, while queries run all the time,
kill one reader and add another. It fails (exit code 1) when a single query failed.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mishards.cli.demo_cluster import PROXIES, READERS, SEGMENT_ROWS, STOP_WAIT_S, Cluster, DemoError

COLLECTION = "packages"
REPLICAS = 2
K = 10
BATCH_ROWS = 250
QUERY_THREADS = 3
OUTPUT = ["name", "summary"]
SHOWN = (  # position in queries.json, filter
    (1, ""),
    (28, ""),
    (35, ""),
    (25, 'section == "games"'),
    (5, "installed_kb < 1000"),
)


def demo(keep: bool, seconds: float) -> None:
    """Tell the story, with queries that run for `seconds` through the failures; `keep`: then wait for Ctrl-C."""
    console = Console(width=80, highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # end the cluster too
    try:
        failed = _tell(console, keep, seconds)
    except DemoError as error:
        console.print(f"\n[bold red]The demo failed:[/] {escape(str(error))}")
        for line in error.log:
            console.print(f"  [dim]{escape(line)}[/]", overflow="ellipsis", no_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


def _tell(console: Console, keep: bool, seconds: float) -> int:
    """The number of queries that failed, after the whole story."""
    data = DemoData.read()
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="mishards-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))

        _title(console, f"1. A cluster: {PROXIES} proxies, {READERS} readers, 1 writer, 1 builder")
        cluster = stack.enter_context(Cluster.running(folder))
        for line in cluster.output():
            console.print(f"  {escape(line)}", overflow="ellipsis", no_wrap=True)
        client = MilvusClient(cluster.uri, timeout=30.0)
        stack.callback(client.close)

        _title(console, f"2. Load {len(data.names):,} packages of Debian 12 with pymilvus")
        _load(console, client, data)

        _title(console, "3. Ask in plain words")
        _show_answers(console, client, data)
        console.print(f"\n  recall@{K} of {len(data.queries)} questions against exact NumPy search: ", end="")
        console.print(f"[bold]{_recall(_search(client, data.query_vectors), data.exact):.3f}[/]")

        _title(console, f"4. Who holds what ({REPLICAS} replicas of each segment)")
        console.print(escape(cluster.command("topology", COLLECTION)))

        _title(console, f"5. {seconds:.0f} seconds of queries while a reader is killed and another one joins")
        failed = _survive(console, stack, cluster, data, seconds)

        _title(console, "6. Who holds what now")
        console.print(escape(cluster.command("topology", COLLECTION)))

        if keep:
            _title(console, f"The cluster keeps running on {cluster.uri}")
            console.print(f'  MilvusClient("{cluster.uri}"), collection "{COLLECTION}"; data in {folder}')
            console.print("  Ctrl-C ends it and removes the data.")
            with suppress(KeyboardInterrupt):
                cluster.process.wait()
    console.print()
    return failed


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class DemoData:
    """What the package ships. `exact` (queries, K): the true nearest rows."""

    names: list[str]
    columns: dict[str, list[Any]]
    vectors: NDArray[np.float32]
    queries: list[str]
    query_vectors: NDArray[np.float32]
    exact: NDArray[np.int64]

    @classmethod
    def read(cls) -> DemoData:
        with resources.as_file(resources.files("mishards.cli") / "demo_data") as folder:
            table = pq.read_table(folder / "packages.parquet")
            vectors = np.load(folder / "vectors.npy").astype(np.float32)
            query_vectors = np.load(folder / "query_vectors.npy").astype(np.float32)
            queries = json.loads((folder / "queries.json").read_text())
        exact = np.argsort(-(query_vectors @ vectors.T), axis=1, kind="stable")[:, :K]
        columns = table.to_pydict()
        return cls(columns["name"], columns, vectors, queries, query_vectors, exact)

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows [start, stop) as pymilvus takes them."""
        return [
            {"id": i, "vector": self.vectors[i]} | {name: values[i] for name, values in self.columns.items()}
            for i in range(start, min(stop, len(self.names)))
        ]


def _load(console: Console, client: MilvusClient, data: DemoData) -> None:
    """Create the collection, insert, flush, index and load it."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=data.vectors.shape[1])
    schema.add_field("name", DataType.VARCHAR, max_length=200)
    schema.add_field("summary", DataType.VARCHAR, max_length=500)
    schema.add_field("section", DataType.VARCHAR, max_length=40)
    schema.add_field("installed_kb", DataType.INT64)
    schema.add_field("tags", DataType.JSON)
    client.create_collection(COLLECTION, schema=schema, consistency_level="Session")

    columns = (TextColumn("  insert"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("insert", total=len(data.names))
        for start in range(0, len(data.names), BATCH_ROWS):
            count = client.insert(COLLECTION, data.rows(start, start + BATCH_ROWS))["insert_count"]
            progress.advance(task, count)
            if (start + BATCH_ROWS) % SEGMENT_ROWS == 0:
                client.flush(COLLECTION)

    def step(text: str, act: Callable[[], Any]) -> None:
        began = time.perf_counter()
        act()
        console.print(f"  {text:<44}{time.perf_counter() - began:5.1f} s")

    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
    step(f"flush: each {SEGMENT_ROWS:,} rows are a segment", lambda: client.flush(COLLECTION))
    step("create an HNSW index", lambda: client.create_index(COLLECTION, index))
    step(f"load with {REPLICAS} replicas", lambda: client.load_collection(COLLECTION, replica_number=REPLICAS))
    counted = client.query(COLLECTION, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
    console.print(f"  count(*): {counted:,}")
    if counted != len(data.names):
        raise DemoError(f"{counted:,} rows are found, {len(data.names):,} were inserted")


# ------------------------------------------------------------------------------------------------------------- queries


def _search(client: MilvusClient, vectors: NDArray[np.float32]) -> list[list[int]]:
    """The ids of the K nearest rows of each vector."""
    answer = client.search(COLLECTION, list(vectors), limit=K, search_params={"params": {"ef": 64}})
    return [[hit["id"] for hit in hits] for hits in answer]


def _recall(found: Sequence[Sequence[int]], exact: NDArray[np.int64]) -> float:
    hits = sum(len(set(ids) & set(truth.tolist())) for ids, truth in zip(found, exact, strict=True))
    return hits / exact.size


def _show_answers(console: Console, client: MilvusClient, data: DemoData) -> None:
    for position, condition in SHOWN:
        answer = client.search(
            COLLECTION, [data.query_vectors[position]], limit=5, filter=condition, output_fields=OUTPUT
        )
        where = f"   [dim]where {escape(condition)}[/]" if condition else ""
        console.print(f'\n  [bold]"{escape(data.queries[position])}"[/]{where}')
        for hit in answer[0]:
            entity = hit["entity"]
            text = f"[green]{hit['distance']:.3f}[/]  {escape(entity['name'])} — {escape(entity['summary'])}"
            console.print(f"    {text}", overflow="ellipsis", no_wrap=True)


@dataclass(slots=True)
class Tally:
    """What one query thread saw."""

    latencies_s: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    found: list[list[int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def _ask_on(uri: str, data: DemoData, first: int, stop: threading.Event, tally: Tally) -> None:
    """Ask one question after the other until told to stop; nothing is retried here."""
    client = MilvusClient(uri, timeout=10.0, dedicated=True)
    position = first
    while not stop.is_set():
        position = (position + 1) % len(data.queries)
        began = time.perf_counter()
        try:
            found = _search(client, data.query_vectors[position : position + 1])[0]
        except Exception as error:
            tally.errors.append(str(error))
            continue
        tally.latencies_s.append(time.perf_counter() - began)
        tally.asked.append(position)
        tally.found.append(found)
    client.close()


@contextmanager
def _asking(uri: str, data: DemoData) -> Iterator[list[Tally]]:
    """Query threads that run inside the block."""
    stop = threading.Event()
    tallies = [Tally() for _ in range(QUERY_THREADS)]
    threads = [
        threading.Thread(target=_ask_on, args=(uri, data, number * 13, stop, tally), daemon=True)
        for number, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    try:
        yield tallies
    finally:
        stop.set()
        for thread in threads:
            thread.join(STOP_WAIT_S)


def _survive(console: Console, stack: ExitStack, cluster: Cluster, data: DemoData, seconds: float) -> int:
    """The number of queries that failed while a reader was killed and another one joined."""
    with _asking(cluster.uri, data) as tallies:
        began = time.monotonic()

        def say(text: str) -> None:
            answered = sum(len(tally.latencies_s) for tally in tallies)
            console.print(f"  {time.monotonic() - began:4.1f} s  {text:<50} {answered:>6,} answered")

        time.sleep(seconds * 0.2)
        victim = cluster.members("reader")[0]
        say(f"kill -9 reader {victim['id']} (pid {victim['pid']})")
        os.kill(int(victim["pid"]), signal.SIGKILL)

        time.sleep(seconds * 0.2)
        newcomer = stack.enter_context(cluster.joined_reader())
        say(f"reader {newcomer} joins")

        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        say(f"{len(cluster.members('reader'))} readers: the killed one was started again")

    return _report(console, data, tallies, seconds)


def _report(console: Console, data: DemoData, tallies: list[Tally], seconds: float) -> int:
    latencies_ms = np.array([latency for tally in tallies for latency in tally.latencies_s]) * 1000
    asked = [position for tally in tallies for position in tally.asked]
    found = [ids for tally in tallies for ids in tally.found]
    errors = [error for tally in tallies for error in tally.errors]
    if not found:
        raise DemoError(f"no query was answered: {errors[0] if errors else 'none came back in time'}")

    p50, p99 = np.percentile(latencies_ms, (50, 99))
    colour = "red" if errors else "green"
    console.print(f"\n  answered  {len(found):,} ({len(found) / seconds:,.0f} a second)")
    console.print(f"  failed    [{colour}]{len(errors)}[/]")
    console.print(f"  latency   p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {latencies_ms.max():.0f} ms")
    console.print(f"  recall@{K} {_recall(found, data.exact[asked]):.3f} all along")
    for error in errors[:3]:
        console.print(f"  [red]{escape(error)}[/]")
    return len(errors)


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold cyan]{escape(text)}[/]")
