"""`mishards backup`: copies of collections in another storage: make, list, verify, restore, drop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mishards.cli.options import AsJson, ConfigFile, Data, Metadata, StorageUrl, load
from mishards.clock import SystemClock
from mishards.config import Settings

if TYPE_CHECKING:
    from mishards.backup.copying import Progress as Report
    from mishards.backup.create import Made
    from mishards.backup.document import Backup
    from mishards.model import Collection
    from mishards.ports import MetadataStore, Storage

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Backups in another storage.")

BackupName = Annotated[str, typer.Argument(help="Name of the backup.")]
To = Annotated[str, typer.Option("--to", help="The other storage: file:///path or s3://bucket/prefix.", metavar="URL")]
From = Annotated[str, typer.Option("--from", help="The storage that has the backup.", metavar="URL")]


class BackupView(msgspec.Struct, frozen=True, kw_only=True):
    """One backup as it is shown. `rows` are as stored."""

    name: str
    created_ms: int
    collections: tuple[str, ...]
    rows: int
    objects: int
    bytes: int
    objects_copied: int | None = None  # when it was made; the others were there
    bytes_copied: int | None = None


@app.command()
def create(
    to: To,
    collections: Annotated[list[str] | None, typer.Argument(help="Names of collections; all if none is named.")] = None,
    name: Annotated[str, typer.Option(help="Name of the backup; the time if not given.")] = "",
    snapshot: Annotated[str, typer.Option(help="Of this snapshot instead of now.")] = "",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
) -> None:
    """Copy collections as they are now. What the other storage has already is not copied again."""
    from mishards.backup import create as creating

    settings = load(config_file, data=data, metadata=metadata, storage=storage).settings
    clock = SystemClock()
    chosen = name or datetime.fromtimestamp(clock.unix_ms() / 1000, UTC).strftime("%Y%m%d-%H%M%S")

    async def make(store: MetadataStore, own: Storage, progress: Report, scratch: Path) -> Made:
        target = await _storage(to)
        return await creating.create(store, own, target, clock, chosen, collections or (), snapshot, scratch, progress)

    made = _with_cluster(settings, make, "copying")
    _show([_view(made.backup, made)], as_json, one=True)


@app.command("list")
def show_all(to: To, as_json: AsJson = False) -> None:
    """Show the backups in a storage."""
    from mishards.backup import document

    async def look() -> list[BackupView]:
        return [_view(backup) for backup in await document.read_all(await _storage(to))]

    _show(asyncio.run(look()), as_json)


@app.command()
def verify(name: BackupName, to: To) -> None:
    """Read every object of a backup and compare its checksum. Exit code 1 if something is wrong."""
    from mishards.backup import document, keeping

    async def look(progress: Report, scratch: Path) -> tuple[str, ...]:
        target = await _storage(to)
        return tuple(await keeping.verify(target, await document.read(target, name), scratch, progress))

    with _bar("reading") as progress, tempfile.TemporaryDirectory() as scratch:
        problems = asyncio.run(look(progress, Path(scratch)))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print(f"backup {name} is whole")


@app.command()
def drop(name: BackupName, to: To) -> None:
    """Delete a backup and the objects that no other one there needs."""
    from mishards.backup import keeping

    async def give_up() -> int:
        return await keeping.drop(await _storage(to), name)

    print(f"backup {name} dropped, {asyncio.run(give_up())} objects deleted")


@app.command()
def restore(
    name: BackupName,
    source: From,
    collections: Annotated[list[str] | None, typer.Argument(help="Of these collections; all if none is named.")] = None,
    rename: Annotated[str, typer.Option("--as", help="Name of the new collection, if it is one.")] = "",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
) -> None:
    """Make collections of a backup, in an empty cluster or a running one; load them to search them."""
    from mishards.backup import document
    from mishards.backup import restore as restoring
    from mishards.cli import show
    from mishards.schema.names import check_collection_name

    if rename:
        check_collection_name(rename)
    settings = load(config_file, data=data, metadata=metadata, storage=storage).settings

    async def make(store: MetadataStore, own: Storage, progress: Report, scratch: Path) -> list[Collection]:
        target = await _storage(source)
        backup = await document.read(target, name)
        return await restoring.restore(
            store, own, target, SystemClock(), backup, collections or (), rename, scratch, progress
        )

    made = _with_cluster(settings, make, "copying")
    if as_json:
        show.json([{"collection": one.name, "id": one.id, "origin": one.origin} for one in made])
    for one in made if not as_json else ():
        print(f"collection {one.name} restored from {one.origin}")


async def _storage(url: str) -> Storage:
    from mishards.server.shared import open_storage

    return await open_storage(Settings(storage=url))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[MetadataStore, Storage]]:
    """An empty cluster is made by opening it."""
    from mishards.server.shared import open_storage, open_store

    store = await open_store(settings, SystemClock())
    try:
        yield store, await open_storage(settings)
    finally:
        await store.close()


def _with_cluster(
    settings: Settings, work: Callable[[MetadataStore, Storage, Report, Path], Awaitable[T]], doing: str
) -> T:
    async def run(progress: Report, scratch: Path) -> T:
        async with _opened(settings) as (store, storage):
            return await work(store, storage, progress, scratch)

    with _bar(doing) as progress, tempfile.TemporaryDirectory() as scratch:
        return asyncio.run(run(progress, Path(scratch)))


@contextmanager
def _bar(doing: str) -> Iterator[Report]:
    """A bar on stderr, if it is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _view(backup: Backup, made: Made | None = None) -> BackupView:
    return BackupView(
        name=backup.name,
        created_ms=backup.created_ms,
        collections=tuple(saved.definition.name for saved in backup.collections),
        rows=sum(saved.rows for saved in backup.collections),
        objects=len(backup.objects),
        bytes=backup.bytes,
        objects_copied=None if made is None else made.objects_copied,
        bytes_copied=None if made is None else made.bytes_copied,
    )


def _show(found: list[BackupView], as_json: bool, one: bool = False) -> None:
    from mishards.cli import show

    if as_json:
        show.json(found[0] if one else found)
        return
    console = Console(highlight=False)
    if not found:
        console.print("No backups yet.")
        return
    table = show.new_table("backup", "made (UTC)", ">rows stored", ">objects", ">size", "collections")
    for each in found:
        numbers = (f"{each.rows:,}", str(each.objects), show.size(each.bytes))
        table.add_row(each.name, show.when(each.created_ms), *numbers, ", ".join(each.collections))
    console.print(table)
    if one:
        console.print(f"{found[0].objects_copied} objects copied, {show.size(found[0].bytes_copied or 0)}")
