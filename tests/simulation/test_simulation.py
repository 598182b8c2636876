"""Whole clusters on virtual time, with everything that can go wrong (I1-I17, I19): no run violates an invariant."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mishards.testing.sim.mutants import MUTANTS
from mishards.testing.sim.run import run_seed

SEEDS = 150
MUTANT_SEEDS_MAX = 60


def simulate(*arguments: str) -> tuple[int, str]:
    """The command's exit code and what it said."""
    command = (sys.executable, "-m", "mishards.testing.sim", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_no_run_violates_an_invariant() -> None:
    """I1-I17: any number of clients, crashes, pauses, cuts and outages."""
    code, told = simulate("--seeds", str(SEEDS), "--jobs", "2")

    assert code == 0, told


def test_a_seed_decides_everything() -> None:
    """One integer replays a run, to the last word of its history, in another process too."""
    first = simulate("--seed", "4")

    assert first[0] == 0, first[1][-2000:]
    assert first == simulate("--seed", "4")


@pytest.mark.parametrize("seed", [1, 3, 7, 30])
def test_both_stores_tell_the_same_story(seed: int) -> None:
    """The SQL store and the plain one do the same whatever happens: a run over either has the same history (where the
    metadata service forgets nothing, which SQLite here cannot)."""
    plain, sqlite = run_seed(seed, store="plain"), run_seed(seed, store="sqlite")

    assert plain.history == sqlite.history


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_broken_rule_is_noticed(name: str) -> None:
    """Each rule of the protocol is needed, and the simulation finds its lack within a few runs."""
    first, many = str(MUTANTS[name].starts), str(MUTANT_SEEDS_MAX)

    code, told = simulate("--mutant", name, "--start", first, "--seeds", many, "--first")

    assert code == 1 and " violates " in told, told


def test_a_switched_off_rule_is_on_again() -> None:
    """Mutants leave the product as it was."""
    violated = run_seed(MUTANTS["mixed_layouts"].starts, "mixed_layouts").violations

    assert violated
    assert not run_seed(MUTANTS["mixed_layouts"].starts).violations
