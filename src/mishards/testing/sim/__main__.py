"""`python -m mishards.testing.sim`: many seeds, or one with its history. See docs/simulation.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.context import BaseContext

from mishards.testing.sim.database import StoreName, in_memory
from mishards.testing.sim.mutants import MUTANTS
from mishards.testing.sim.run import Outcome, begin_process, run_chunk, run_seed

CHUNK = 5  # seeds that a process takes at once
CHUNKS_MAX = 20  # of one process: it keeps some 3 MB of each run
TOLD_S = 10.0  # between two lines of progress
SHOWN = 3  # violations of a run that are shown

RunChunk = Callable[[Iterable[int]], list[Outcome]]


def main() -> int:
    """0: no violation; 1: some."""
    if sys.flags.hash_randomization:  # the order of sets is part of what a seed decides
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "mishards.testing.sim", *sys.argv[1:]])
    options = _options()
    if options.seed is not None:
        return _replay(options.seed, options.mutant, options.store)
    seeds = range(options.start, options.start + options.seeds)
    return _run_many(seeds, options.jobs, partial(run_chunk, mutant=options.mutant, store=options.store), options.first)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mishards.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="replay this run and tell what happened")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="with this rule switched off")
    parser.add_argument("--store", choices=("plain", "sqlite"), help="this metadata service; without, as the seed says")
    parser.add_argument("--first", action="store_true", help="end with the first violation")
    return parser.parse_args()


def _replay(seed: int, mutant: str, store: StoreName | None) -> int:
    outcome = run_seed(seed, mutant, store)
    for line in outcome.history:
        _say(line)
    _say(f"store {outcome.store}, history {outcome.history_hash}")
    _tell(outcome)
    return 1 if outcome.violations else 0


def _run_many(seeds: range, jobs: int, run: RunChunk, first: bool) -> int:
    began_s = told_s = time.monotonic()
    stores: Counter[str] = Counter()
    failed = []
    operations: Counter[str] = Counter()
    events: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="mishards-sim-", dir=in_memory()) as folder,
        ProcessPoolExecutor(jobs, _ready_to_fork(), begin_process, (folder,), max_tasks_per_child=CHUNKS_MAX) as pool,
    ):
        for outcome in _outcomes(pool, seeds, jobs, run):
            stores[outcome.store] += 1
            operations += outcome.operations
            events += outcome.events
            if outcome.violations:
                failed.append(outcome.seed)
                _tell(outcome)
                if first:
                    pool.shutdown(cancel_futures=True)
                    break
            if time.monotonic() - told_s > TOLD_S:
                told_s = time.monotonic()
                done = stores.total()
                _say(f"{done} of {len(seeds)} seeds, {len(failed)} failed, {done / (told_s - began_s):.1f} a second")
    _say(f"operations {dict(operations.most_common())}")
    _say(f"events {dict(events.most_common())}")
    over = ", ".join(f"{count} over {store}" for store, count in stores.most_common())
    _say(f"{stores.total()} seeds ({over}), {len(failed)} failed {failed[:20]}, {time.monotonic() - began_s:.0f} s")
    return 1 if failed else 0


def _ready_to_fork() -> BaseContext:
    """Processes begin with everything imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["mishards.testing.sim.run"])
    return context


def _outcomes(pool: ProcessPoolExecutor, seeds: range, jobs: int, run: RunChunk) -> Iterator[Outcome]:
    """In order; only a few chunks are under way, so that there is an end soon after the first failure."""
    chunks = iter([seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)])
    under_way = [pool.submit(run, chunk) for chunk in islice(chunks, 2 * jobs)]
    while under_way:
        yield from under_way.pop(0).result()
        under_way += [pool.submit(run, chunk) for chunk in islice(chunks, 1)]


def _tell(outcome: Outcome) -> None:
    for violation in outcome.violations[:SHOWN]:
        _say(f"seed {outcome.seed} ({outcome.store}) violates {violation}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
