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

from mishards.testing.sim.chaos import trouble
from mishards.testing.sim.loop import START_S, SpinningError
from mishards.testing.sim.mutants import MUTANTS, SMALL_WORLD
from mishards.testing.sim.world import World

ONLY_CRITICAL = 50  # of the log


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `history_hash` names everything that happened; `history` tells it, where it was kept."""

    seed: int
    violations: tuple[str, ...]
    history_hash: str
    operations: Counter[str]
    events: Counter[str]
    virtual_s: float
    history: list[str] = field(default_factory=list)


def run_seed(seed: int, mutant: str = "") -> Outcome:
    """The run of that seed; with a rule of the protocol switched off, if one is named."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(ONLY_CRITICAL))
    with ExitStack() as switched:
        switched.enter_context(_undisturbed())
        for each in (*SMALL_WORLD, *([MUTANTS[mutant]] if mutant else ())):
            switched.enter_context(each.applied())
        world = World(seed)
        try:
            world.loop.run(world.run(trouble))
        except SpinningError as error:
            world.violated("spinning", str(error))
        except Exception as error:  # what a broken rule may lead to, or a defect of the simulation
            world.violated("crash", repr(error))
        finally:
            world.loop.close()
        return _outcome(world)


def run_chunk(seeds: Iterable[int], mutant: str) -> list[Outcome]:
    """Several runs, without their histories, which are long."""
    return [replace(run_seed(seed, mutant), history=[]) for seed in seeds]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing is freed at a moment of its own choice: what dead processes leave would run then, and say so."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    if not gc.get_freeze_count():
        gc.freeze()  # all that is imported need not be looked at after each run
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.enable()
        sys.unraisablehook = hook


def _outcome(world: World) -> Outcome:
    lines = world.history_lines
    return Outcome(
        seed=world.seed,
        violations=tuple(world.violations),
        history_hash=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        operations=world.operations,
        events=world.events,
        virtual_s=world.loop.time() - START_S,
        history=lines,
    )
