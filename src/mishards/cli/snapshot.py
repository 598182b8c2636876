"""`mishards snapshot`: take, list, describe, drop and restore snapshots, in the metadata service; no node need run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console

from mishards.cli.options import AsJson, ConfigFile, Data, Metadata, load
from mishards.errors import collection_not_found
from mishards.model import Collection, FileKind

if TYPE_CHECKING:
    from mishards.ports import MetadataStore, Pin

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Snapshots: versions of collections that stay readable.")

Name = Annotated[str, typer.Argument(help="Name of the snapshot in its collection.")]
Of = Annotated[str, typer.Argument(help="Name or alias of the collection.")]


class SnapshotView(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot as it is listed."""

    collection: str
    name: str
    version: int
    created_ms: int
    description: str


class SnapshotDetails(SnapshotView, frozen=True, kw_only=True):
    """And what it holds. `rows` are as stored: deletes not yet applied to segments are still counted."""

    rows: int
    segments: int
    fresh_files: int
    bytes: int


@app.command()
def create(
    collection: Of,
    name: Name,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Keep the collection as it is now. Costs nothing until its files are replaced."""
    from mishards.clock import SystemClock
    from mishards.metadata import snapshots
    from mishards.schema.names import check_snapshot_name

    check_snapshot_name(name)

    async def take(store: MetadataStore) -> SnapshotDetails:
        of = await _find(store, collection)
        pin = await snapshots.take(store, SystemClock(), await store.take_ids(1), of, name, description)
        return await _details(store, pin)

    _show(_run(config_file, data, metadata, take), as_json)


@app.command("list")
def show_all(
    collection: Annotated[str | None, typer.Argument(help="Name or alias of a collection.")] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Show the snapshots, of one collection or of all."""
    from mishards.metadata import snapshots

    async def look(store: MetadataStore) -> list[SnapshotView]:
        of = None if collection is None else (await _find(store, collection)).id
        return [SnapshotView(**_view(pin)) for pin in await snapshots.snapshots_of(store, of)]

    _list(_run(config_file, data, metadata, look), as_json)


@app.command()
def describe(
    collection: Of,
    name: Name,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Show one snapshot."""
    from mishards.metadata import snapshots

    async def look(store: MetadataStore) -> SnapshotDetails:
        return await _details(store, await snapshots.require(store, await _find(store, collection), name))

    _show(_run(config_file, data, metadata, look), as_json)


@app.command()
def drop(
    collection: Of, name: Name, config_file: ConfigFile = None, data: Data = None, metadata: Metadata = None
) -> None:
    """Give a snapshot up; what only it needed is deleted."""
    from mishards.metadata import snapshots

    async def give_up(store: MetadataStore) -> None:
        await store.drop_pin((await snapshots.require(store, await _find(store, collection), name)).id)

    _run(config_file, data, metadata, give_up)
    print(f"snapshot {name} of {collection} dropped")


@app.command()
def restore(
    collection: Of,
    name: Name,
    target: Annotated[str, typer.Argument(help="Name of the new collection.")],
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Make a new collection of a snapshot. It shares the files, so that nothing is copied; load it to search it."""
    from mishards.cli import show
    from mishards.clock import SystemClock
    from mishards.metadata import snapshots
    from mishards.schema.names import check_collection_name

    check_collection_name(target)

    async def make(store: MetadataStore) -> Collection:
        pin = await snapshots.require(store, await _find(store, collection), name)
        return await snapshots.restore(store, SystemClock(), await store.take_ids(1), pin, target)

    made = _run(config_file, data, metadata, make)
    if as_json:
        show.json({"collection": made.name, "id": made.id, "origin": made.origin})
    else:
        print(f"collection {made.name} restored from {made.origin}")


def _run(file: Path | None, data: str | None, metadata: str | None, work: Callable[[MetadataStore], Awaitable[T]]) -> T:
    from mishards.cli.survey import opened

    settings = load(file, data=data, metadata=metadata).settings

    async def run() -> T:
        async with opened(settings) as store:
            return await work(store)

    return asyncio.run(run())


async def _find(store: MetadataStore, name: str) -> Collection:
    heads = await store.heads()
    for collection, _ in await store.collections([head.collection_id for head in heads]):
        if name == collection.name or name in collection.aliases:
            return collection
    raise collection_not_found(name)


def _view(pin: Pin) -> dict[str, Any]:
    return {
        "collection": pin.definition.name,
        "name": pin.name,
        "version": pin.version,
        "created_ms": pin.created_ms,
        "description": pin.description,
    }


async def _details(store: MetadataStore, pin: Pin) -> SnapshotDetails:
    files = (await store.pinned(pin.id))[1].added
    segments = [file for file in files if file.kind is FileKind.SEGMENT]
    return SnapshotDetails(
        **_view(pin),
        rows=sum(file.rows - file.dead for file in files if file.kind is not FileKind.TOMBSTONES),
        segments=len(segments),
        fresh_files=len(files) - len(segments),
        bytes=sum(file.bytes for file in files),
    )


def _show(found: SnapshotDetails, as_json: bool) -> None:
    from mishards.cli import show

    if as_json:
        show.json(found)
        return
    table = show.new_table("collection", "snapshot", ">version", "taken (UTC)", ">rows stored", ">size", "description")
    numbers = (f"{found.rows:,}", show.size(found.bytes))
    at = show.when(found.created_ms)
    table.add_row(found.collection, found.name, str(found.version), at, *numbers, found.description)
    Console(highlight=False).print(table)


def _list(found: Sequence[SnapshotView], as_json: bool) -> None:
    from mishards.cli import show

    if as_json:
        show.json(found)
        return
    console = Console(highlight=False)
    if not found:
        console.print("No snapshots yet.")
        return
    table = show.new_table("collection", "snapshot", ">version", "taken (UTC)", "description")
    for one in found:
        table.add_row(one.collection, one.name, str(one.version), show.when(one.created_ms), one.description)
    console.print(table)
