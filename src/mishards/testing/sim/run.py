"""A run from a seed alone, and many of them."""

from __future__ import annotations

import gc
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import structlog
from structlog import DropEvent
from structlog.typing import EventDict

from mishards.segment.ipc import keep_pandas_out
from mishards.testing.sim.chaos import trouble
from mishards.testing.sim.database import StoreName, keep_in, store_of
from mishards.testing.sim.loop import START_S, SpinningError
from mishards.testing.sim.mutants import MUTANTS, SMALL_WORLD
from mishards.testing.sim.world import World

ONLY_CRITICAL = 50  # of the log


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `history_hash` names everything that happened; `history` tells it, where it was kept."""

    seed: int
    store: StoreName
    violations: tuple[str, ...]
    history_hash: str
    operations: Counter[str]
    events: Counter[str]
    virtual_s: float
    history: list[str] = field(default_factory=list)


def run_seed(seed: int, mutant: str = "", store: StoreName | None = None) -> Outcome:
    """The run of that seed; with a rule of the protocol switched off, if one is named. `store`: which metadata service,
    else the seed says so."""
    with _undisturbed(), ExitStack() as switched:
        for each in (*SMALL_WORLD, *([MUTANTS[mutant]] if mutant else ())):
            switched.enter_context(each.applied())
        return _run(World(seed, store or store_of(seed)))


def _run(world: World) -> Outcome:
    only_critical = structlog.make_filtering_bound_logger(ONLY_CRITICAL)
    structlog.configure(wrapper_class=only_critical, processors=[world.on_critical])
    try:
        world.loop.run(world.run(trouble))
    except SpinningError as error:
        world.violated("spinning", str(error))
    except Exception as error:  # what a broken rule may lead to, or a defect of the simulation
        world.violated("crash", repr(error))
    finally:
        world.loop.close()
        structlog.configure(processors=[_drop])  # the log holds no world that nobody else does
    return _outcome(world)


def _drop(logger: object, method: str, event: EventDict) -> EventDict:
    """Of what dead processes leave nothing is logged."""
    raise DropEvent


def run_chunk(seeds: Iterable[int], mutant: str, store: StoreName | None = None) -> list[Outcome]:
    """Several runs, without their histories, which are long."""
    return [replace(run_seed(seed, mutant, store), history=[]) for seed in seeds]


def begin_process(folder: str) -> None:
    """This OS process keeps its files below that folder. It ends after some runs: what they leave it never frees."""
    keep_in(folder)
    keep_pandas_out()
    gc.disable()
    sys.unraisablehook = _say_nothing


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing is freed at a moment of its own choice: what dead processes leave would run then, and say so."""
    if not gc.isenabled():
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, _say_nothing
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.enable()
        sys.unraisablehook = hook


def _say_nothing(unraisable: object) -> None:
    """Of what dead processes leave nothing is news."""


def _outcome(world: World) -> Outcome:
    lines = world.history_lines
    return Outcome(
        seed=world.seed,
        store=world.store,
        violations=tuple(world.violations),
        history_hash=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        operations=world.operations,
        events=world.events,
        virtual_s=world.loop.time() - START_S,
        history=lines,
    )
