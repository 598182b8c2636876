"""A run, from the data to the results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import indexes, inserting, load, many_collections, overhead, readers, results, serving
from bench.context import Context
from bench.data import Dataset, clustered, packages
from bench.settings import Settings, described

INSERTERS = 1  # beside the searching workers


def run(
    settings: Settings,
    systems: tuple[str, ...],
    sections: tuple[str, ...],
    packages_folder: Path | None,
    say: Callable[[str], None],
    done: Callable[[results.Results], None],
) -> results.Results:
    """Measure the sections. `done` gets what there is after each."""
    found = results.Results(results.about(described(settings)))
    if settings.rounds_real and packages_folder is None:
        found.notes.append("the data set `packages` is left out: MISHARDS_BENCH_DATA is not set")
    say("making the data")
    sets = datasets(settings, packages_folder)
    workers = max(point.workers for point in settings.points) + INSERTERS
    with tempfile.TemporaryDirectory(prefix="mishards-bench-") as folder, load.pool(workers) as pool:
        context = Context(settings, systems, found, pool, Path(folder), say)
        for measure in _plan(context, sets, sections):
            measure()
            done(found)
    return found


def datasets(settings: Settings, packages_folder: Path | None) -> list[Dataset]:
    """The synthetic data, and the real one where it is wanted and known, at most as many rows."""
    made = [clustered(settings.rows)]
    if settings.rounds_real and packages_folder is not None:
        made.append(packages(packages_folder, settings.rows))
    return made


def _plan(context: Context, sets: Sequence[Dataset], sections: tuple[str, ...]) -> list[Callable[[], None]]:
    """What to do one after the other. Inserting comes last on its data, which it changes."""
    first, settings = sets[0], context.settings
    rounds = [settings.rounds, *[settings.rounds_real] * (len(sets) - 1)]
    everything: dict[str, list[Callable[[], None]]] = {
        "serving": [partial(serving.measure, context, *each) for each in zip(sets, rounds, strict=True)],
        "overhead": [partial(overhead.measure, context, first)],
        "readers": [partial(readers.measure, context, first)],
        "inserting": [partial(inserting.measure, context, first)],
        "collections": [partial(many_collections.measure, context, first)],
        "indexes": [partial(indexes.measure, context, data) for data in sets],
    }
    return [measure for section, measures in everything.items() if section in sections for measure in measures]
