"""`python -m tools.census`: run, tell, exit with 1 after any violation."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tools.census import report
from tools.census.faults import KINDS
from tools.census.history import History
from tools.census.nodes import DATABASES, Cluster
from tools.census.run import Plan, census

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    metadata: Annotated[str, typer.Option(help=f"{', '.join(DATABASES)}.")] = "sqlite",
    seed: Annotated[int, typer.Option(help="What happens, and when.")] = 7,
    minutes: Annotated[float, typer.Option(min=0.01, help="Of faults.")] = 1.0,
    keys: Annotated[int, typer.Option(min=100, help="Of the larger collection.")] = 3000,
    proxies: Annotated[int, typer.Option(min=1)] = 2,
    readers: Annotated[int, typer.Option(min=1)] = 2,
    writers: Annotated[int, typer.Option(min=1)] = 2,
    builders: Annotated[int, typer.Option(min=1)] = 2,
    fault: Annotated[list[str] | None, typer.Option(help=f"Kind, repeatable, or none: {', '.join(KINDS)}.")] = None,
    pause: Annotated[float, typer.Option(min=0.1, help="Seconds between faults of a burst, on average.")] = 2.0,
    grace: Annotated[float, typer.Option(min=0.0, help="builder.garbage_grace_s.")] = 20.0,
    folder: Annotated[Path | None, typer.Option(help="For logs, history and data; kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON on stdout.")] = False,
) -> None:
    """Run a cluster under faults and check every answer."""
    if metadata not in DATABASES:
        raise typer.BadParameter(f"{metadata!r} is none of {', '.join(DATABASES)}")
    kinds = list(KINDS) if fault is None else [kind for kind in fault if kind != "none"]
    if unknown := set(kinds) - set(KINDS):
        raise typer.BadParameter(f"unknown faults {sorted(unknown)}; there are {', '.join(KINDS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes are stopped
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every failed call
    kept, folder = folder is not None, folder or Path(tempfile.mkdtemp(prefix="mishards-census-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty")
    told = Console(stderr=True, highlight=False, width=160)
    counts = {"proxy": proxies, "reader": readers, "writer": writers, "builder": builders}
    history = History(folder / "history.jsonl")
    cluster = Cluster(folder, metadata, counts, grace)
    try:
        cluster.start()
        told.print(f"{metadata}, seed {seed}, logs and history in {folder}")
        plan = Plan(seed, keys, 60 * minutes, kinds, pause)
        census(cluster, history, plan, lambda text: told.print(text, markup=False))
        for name in cluster.stop():
            history.blame(f"{name} did not end after SIGTERM")
    finally:
        cluster.stop()
        cluster.close()
        history.close()
    defects = cluster.defects()
    found = report.figures(history, defects, {"metadata": metadata, "seed": seed, "minutes": minutes, "keys": keys})
    (folder / "report.json").write_text(json.dumps(found, indent=1))
    report.show(found, told)
    if as_json:
        typer.echo(json.dumps(found))
    if found["good"] and not kept:
        shutil.rmtree(folder)
    else:
        told.print(f"kept: {folder}")
    raise typer.Exit(0 if found["good"] else 1)
