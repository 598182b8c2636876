"""The load: client processes, each with one request in flight, that start and stop together.

They live as long as the run, because importing pymilvus takes seconds. They take their share of the machine's cores,
which is the same client's for every system; `Outcome` says how much.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.settings import Point

KEPT_MAX = 300  # requests of a worker whose answers are checked
SPREAD = 7919  # a prime: workers go through queries and collections each in an order of their own
START_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class SearchJob:
    """Search, each request with the next queries, until the time is over."""

    uri: str
    collections: tuple[str, ...]
    queries: Path
    point: Point
    warm_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class InsertJob:
    """Insert the rows [first, last) of the data in batches; at most `rows_s` a second, 0: as fast as it goes."""

    uri: str
    collection: str
    folder: Path  # with vectors.npy
    numbers: NDArray[np.int64]
    first: int
    last: int
    batch: int
    rows_s: float = 0.0
    first_id: int = 0  # of row 0


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker did. Times are of the machine's monotonic clock, which all processes share."""

    began_s: float
    ended_s: float
    latencies_s: NDArray[np.float64]
    answers: list[tuple[int, list[int]]]  # (number of the query, ids)
    errors: list[str]
    cpu_s: float
    sent: int  # requests, those of the warm-up too


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the workers did together."""

    parts: tuple[Part, ...]

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        return np.concatenate([part.latencies_s for part in self.parts])

    @property
    def answers(self) -> list[tuple[int, list[int]]]:
        return [answer for part in self.parts for answer in part.answers]

    @property
    def errors(self) -> list[str]:
        return [error for part in self.parts for error in part.errors]

    @property
    def cpu_s(self) -> float:
        return sum(part.cpu_s for part in self.parts)

    @property
    def wall_s(self) -> float:
        return max(part.ended_s for part in self.parts) - min(part.began_s for part in self.parts)

    @property
    def sent(self) -> int:
        return sum(part.sent for part in self.parts)

    def speed(self, nq: int) -> dict[str, float]:
        """Queries a second, the latency of a request, errors, and the clients' own cost of a request."""
        latencies_ms = self.latencies_s * 1e3
        if not len(latencies_ms):
            raise RuntimeError(f"no request succeeded: {self.errors[:1]}")
        return {
            "qps": len(latencies_ms) * nq / self.wall_s,
            "p50_ms": float(np.percentile(latencies_ms, 50)),
            "p99_ms": float(np.percentile(latencies_ms, 99)),
            "errors": float(len(self.errors)),
            "client_cpu_ms": self.cpu_s / len(latencies_ms) * 1e3,
        }


class Workers:
    """A pool of client processes."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def search(self, job: SearchJob) -> Outcome:
        return self.finish(self.begin([job] * job.point.workers))

    def insert(self, job: InsertJob, workers: int) -> Outcome:
        """The job's rows, in one consecutive part a worker."""
        edges = np.linspace(job.first, job.last, workers + 1).astype(int).tolist()
        return self.finish(self.begin([replace(job, first=a, last=b) for a, b in pairwise(edges)]))

    def begin(self, jobs: Sequence[SearchJob | InsertJob], skip: int = 0) -> Sequence[Connection]:
        """Start the jobs, one a worker, when all are ready; the first `skip` workers are busy with something else."""
        pipes = self._pipes[skip : skip + len(jobs)]
        if len(pipes) < len(jobs):
            raise ValueError(f"{len(jobs)} jobs for {len(self._pipes) - skip} workers")
        for pipe, job in zip(pipes, jobs, strict=True):
            pipe.send(job)
        for pipe in pipes:
            _received(pipe, START_S_MAX)
        start_s = time.monotonic() + 0.02
        for pipe in pipes:
            pipe.send(start_s)
        return pipes

    def finish(self, pipes: Sequence[Connection], within_s: float = 600.0) -> Outcome:
        return Outcome(tuple(_received(pipe, within_s) for pipe in pipes))


@contextmanager
def pool(count: int) -> Iterator[Workers]:
    """`count` processes, fresh ones: gRPC does not survive a fork."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=_serve, args=(theirs, number), daemon=True) for number, (_, theirs) in enumerate(pairs)
    ]
    for process in processes:
        process.start()
    try:
        yield Workers([ours for ours, _ in pairs])
    finally:
        for ours, _ in pairs:
            ours.close()
        for (_, theirs), process in zip(pairs, processes, strict=True):
            theirs.close()
            process.join(2.0)
            process.kill()


def _received(pipe: Connection, within_s: float) -> Any:
    if not pipe.poll(within_s):
        raise TimeoutError(f"a worker says nothing for {within_s:g} s")
    answer = pipe.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


# ------------------------------------------------------------------------------------------------------- in the worker


def _serve(pipe: Connection, number: int) -> None:
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            (_search if isinstance(job, SearchJob) else _insert)(pipe, job, number)
        except Exception as error:  # the parent raises it
            pipe.send(RuntimeError(f"worker {number}: {type(error).__name__}: {error}"))


def _search(pipe: Connection, job: SearchJob, number: int) -> None:
    from pymilvus import MilvusException

    from bench import client as door

    queries, nq = np.load(job.queries, mmap_mode="r"), job.point.nq
    slots = len(queries) // nq
    client = door.connect(job.uri)
    try:
        for name in job.collections:  # what a client learns of a collection once
            door.search(client, name, list(queries[:nq]), job.point)
        pipe.send("ready")
        begin_s = pipe.recv() + job.warm_s
        end_s = begin_s + job.seconds
        _sleep_until(begin_s - job.warm_s)

        latencies_s: list[float] = []
        kept: list[tuple[int, Any]] = []
        errors: list[str] = []
        turn = begun = number * SPREAD
        cpu_s = time.process_time()
        while (sent_s := time.monotonic()) < end_s:
            if sent_s < begin_s:
                cpu_s = time.process_time()
            turn += 1
            first = turn % slots * nq
            name = job.collections[turn * SPREAD % len(job.collections)]
            try:
                answer = door.search(client, name, list(queries[first : first + nq]), job.point)
            except MilvusException as error:
                errors.append(str(error))
                continue
            if sent_s >= begin_s:
                latencies_s.append(time.monotonic() - sent_s)
                if len(kept) < KEPT_MAX:
                    kept.append((first, answer))
        ended_s, cpu_s = time.monotonic(), time.process_time() - cpu_s
    finally:
        client.close()
    answers = [(first + i, ids) for first, answer in kept for i, ids in enumerate(door.ids(answer))]
    pipe.send(Part(begin_s, ended_s, np.array(latencies_s), answers, errors, cpu_s, turn - begun))


def _insert(pipe: Connection, job: InsertJob, number: int) -> None:
    from pymilvus import MilvusException

    from bench import client as door

    vectors = np.load(job.folder / "vectors.npy", mmap_mode="r")
    client = door.connect(job.uri)
    try:
        edges = [*range(job.first, job.last, job.batch), job.last]
        batches = [_rows(job, vectors, a, b) for a, b in pairwise(edges)]
        pipe.send("ready")
        begin_s = pipe.recv()
        _sleep_until(begin_s)

        latencies_s: list[float] = []
        errors: list[str] = []
        cpu_s, done = time.process_time(), 0
        for rows in batches:
            if job.rows_s:
                _sleep_until(begin_s + done / job.rows_s)
            sent_s = time.monotonic()
            try:
                client.insert(job.collection, rows)
            except MilvusException as error:
                errors.append(str(error))
            latencies_s.append(time.monotonic() - sent_s)
            done += len(rows)
        ended_s, cpu_s = time.monotonic(), time.process_time() - cpu_s
    finally:
        client.close()
    pipe.send(Part(begin_s, ended_s, np.array(latencies_s), [], errors, cpu_s, len(batches)))


def _rows(job: InsertJob, vectors: Any, first: int, last: int) -> list[dict[str, Any]]:
    """The rows as pymilvus takes them; row i has the id `first_id + i`."""
    return [
        {"id": job.first_id + i, "v": np.array(vectors[i % len(vectors)]), "n": int(job.numbers[i % len(job.numbers)])}
        for i in range(first, last)
    ]


def _sleep_until(when_s: float) -> None:
    time.sleep(max(0.0, when_s - time.monotonic()))
