"""`python -m bench`: measure, and write the table, the figures and the plot."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from bench import report, results
from bench import settings as s
from bench.run import run

RESULTS = Path(__file__).parent / "results"
app = typer.Typer(add_completion=False)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A few minutes, small data.")] = False,
    rows: Annotated[int | None, typer.Option(min=2_000, help="Of the synthetic data (200,000).")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of the main table (3; 2 on real data).")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, help="Of each load (2).")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Section: {', '.join(s.SECTIONS)}.")] = None,
    system: Annotated[list[str] | None, typer.Option(help=f"System: {', '.join(s.SYSTEMS)}.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the files of results (latest; quick; part).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Only write the table and the plot again.")] = False,
) -> None:
    """Measure Mishards, alone and as a cluster, beside Milvus. Without options: all of it, 25 minutes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped, folders removed
    sections = _chosen("--only", only, s.SECTIONS)
    systems = _chosen("--system", system, s.SYSTEMS)
    settings = (s.quick if quick else s.full)(rows, rounds, seconds)
    whole = sections == s.SECTIONS and systems == s.SYSTEMS and rows is None
    name = name or ("quick" if quick else "latest" if whole or redraw else "part")
    console = Console(stderr=True, highlight=False)
    if redraw:
        found = results.read(RESULTS / f"{name}.json")
        report.write(found, RESULTS, name)
    else:
        folder = os.environ.get("MISHARDS_BENCH_DATA")
        with console.status("") as status:

            def say(text: str) -> None:
                status.update(text)
                if not console.is_terminal:
                    console.print(text)

            found = run(
                settings,
                systems,
                sections,
                Path(folder) if folder else None,
                say,
                lambda so_far: report.write(so_far, RESULTS, name),
            )
    if as_json:
        typer.echo((RESULTS / f"{name}.json").read_text())
    else:
        Console(width=140).print(Markdown((RESULTS / f"{name}.md").read_text()))


def _chosen(option: str, given: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; expected some of: {', '.join(known)}", param_hint=option)
    return tuple(each for each in known if not given or each in given)
