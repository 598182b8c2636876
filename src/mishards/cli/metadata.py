"""`mishards metadata`: check, upgrade, export and rebuild the metadata service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mishards.cli.options import AsJson, ConfigFile, Data, Metadata, StorageUrl, load
from mishards.config import Settings

if TYPE_CHECKING:
    from mishards.metadata.rebuild import Report

app = typer.Typer(no_args_is_help=True, help="The metadata service: check, migrate, export, rebuild.")


@app.command()
def check(
    deep: Annotated[bool, typer.Option("--deep", help="Read every object, too.")] = False,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
) -> None:
    """Check schema, commits, names, and that every listed file is in storage. Exit code 1 if something is wrong."""
    from mishards.cli import audit, show
    from mishards.server.shared import open_storage

    async def look(settings: Settings) -> audit.Checked:
        async with audit.sql_store(settings) as store:
            return await audit.check(store, await open_storage(settings), deep)

    found = asyncio.run(look(load(config_file, data=data, metadata=metadata, storage=storage).settings))
    if as_json:
        show.json(found)
    else:
        console = Console(highlight=False)
        for problem in found.problems:
            console.print(problem, markup=False, soft_wrap=True)
        looked = (
            f"{found.collections} collections, {found.commits} commits, {found.files} files, {found.objects} objects"
        )
        console.print(f"schema {found.revision or 'none'}, {looked}: {len(found.problems)} problems")
    if found.problems:
        raise typer.Exit(1)


@app.command()
def upgrade(
    config_file: ConfigFile = None, data: Data = None, metadata: Metadata = None, as_json: AsJson = False
) -> None:
    """Bring the database to this program's schema, as the first node that starts would."""
    from mishards.cli import audit, show

    async def migrate(settings: Settings) -> tuple[str, str]:
        async with audit.sql_store(settings) as store:
            before = (await store.revisions())[0]
            await store.open()
            return before, (await store.revisions())[0]

    before, after = asyncio.run(migrate(load(config_file, data=data, metadata=metadata).settings))
    if as_json:
        show.json({"before": before, "after": after})
    else:
        print(f"schema {after}" + ("" if before == after else f", was {before or 'none'}"))


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to write; standard output if not given.")] = None,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Write every record as a line of JSON, of one moment."""
    from mishards.cli import audit

    async def write_all(settings: Settings, write: Callable[[str], object]) -> int:
        async with audit.sql_store(settings) as store:
            return await store.dump(write)

    settings = load(config_file, data=data, metadata=metadata).settings
    if file is None:
        asyncio.run(write_all(settings, sys.stdout.write))
        return
    with file.open("w", encoding="utf-8") as output:
        count = asyncio.run(write_all(settings, output.write))
    print(f"{count} records written to {file}")


@app.command()
def rebuild(
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
) -> None:
    """Restore a lost metadata service, into an empty one, from what lies in storage. Stop all nodes first."""
    from mishards.cli import audit, show
    from mishards.clock import SystemClock
    from mishards.metadata import rebuild as rebuilding
    from mishards.server.shared import open_storage

    async def restore(settings: Settings) -> rebuilding.Report:
        async with audit.sql_store(settings) as store:
            await store.open()
            return await rebuilding.rebuild(store, await open_storage(settings), SystemClock())

    report = asyncio.run(restore(load(config_file, data=data, metadata=metadata, storage=storage).settings))
    if as_json:
        show.json(report)
    else:
        _print_report(report)
    if report.problems:
        raise typer.Exit(1)


def _print_report(report: Report) -> None:
    console = Console(highlight=False)
    for each in report.restored:
        at = datetime.fromtimestamp(each.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        line = f"{each.name}: as of {at} UTC, version {each.version}, {each.rows:,} rows in {each.files} files"
        console.print("; ".join((line, *each.notes)), markup=False, soft_wrap=True)
    for problem in report.problems:
        console.print(problem, markup=False, soft_wrap=True)
    console.print(
        f"{len(report.restored)} collections restored. What was written or defined after those times is lost."
    )
