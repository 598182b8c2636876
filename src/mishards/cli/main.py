"""The commands. Each one reads its flags, loads the settings and hands over to the module that does the work.

A SetupError is one line on stderr and exit code 2, as are wrong flags; a failed request is one line and exit code 1.
Modules that take long to import are imported by the command that needs them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mishards
from mishards.cli.backup import app as backup_commands
from mishards.cli.metadata import app as metadata_commands
from mishards.cli.options import AsJson, ConfigFile, Data, Metadata, StorageUrl, load
from mishards.cli.snapshot import app as snapshot_commands
from mishards.errors import MishardsError, SetupError


class Commands(TyperGroup):
    """Turns the errors that a person can act on into one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SetupError as error:
            typer.echo(f"mishards: {error}", err=True)
            raise typer.Exit(2) from error
        except MishardsError as error:
            typer.echo(f"mishards: {error.message}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
config_app = typer.Typer(no_args_is_help=True, help="The settings.")
app.add_typer(config_app, name="config")
app.add_typer(metadata_commands, name="metadata")
app.add_typer(snapshot_commands, name="snapshot")
app.add_typer(backup_commands, name="backup")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mishards {mishards.__version__}")
        raise typer.Exit


@app.callback()
def mishards_command(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Mishards: a distributed vector database that looks like one Milvus server and grows by adding nodes."""


def main() -> None:
    """The program `mishards`.

    It ends without Python's own shutdown, which aborts the process (SIGABRT, one time in five) when a thread of obstore
    is on its way back from its last answer. By then every command has ended what it began."""
    try:
        app()
    except SystemExit as end:
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)


Host = Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port of the Milvus door (19530).")]
HttpPort = Annotated[int | None, typer.Option(help="Port for health and metrics (9091); 0: any free one.")]
Discovery = Annotated[str | None, typer.Option(help="Service registry (metadata://).", metavar="URL")]


@app.command()
def serve(
    role: Annotated[str | None, typer.Option(help="all, or a list of proxy,reader,writer,builder (all).")] = None,
    config_file: ConfigFile = None,
    data: Data = None,
    host: Host = None,
    port: Port = None,
    http_port: HttpPort = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
    discovery: Discovery = None,
    node_id: Annotated[str | None, typer.Option(help="Stable name of this node.", metavar="NAME")] = None,
) -> None:
    """Run one node: all roles (a standalone server) or some of them."""
    settings = load(
        config_file,
        roles=role,
        data=data,
        host=host,
        port=port,
        http_port=http_port,
        metadata=metadata,
        storage=storage,
        discovery=discovery,
        node_id=node_id,
    ).settings
    import uvloop

    from mishards import server
    from mishards.telemetry import logging

    logging.set_up(settings.log_level)
    uvloop.run(server.run(settings, ready=_print_now))


@app.command()
def cluster(
    config_file: ConfigFile = None,
    data: Data = None,
    proxies: Annotated[int, typer.Option(min=1)] = 1,
    readers: Annotated[int, typer.Option(min=1)] = 2,
    writers: Annotated[int, typer.Option(min=1)] = 1,
    builders: Annotated[int, typer.Option(min=1)] = 1,
    host: Host = None,
    port: Port = None,
    http_port: HttpPort = None,
    metadata: Metadata = None,
    storage: StorageUrl = None,
    discovery: Discovery = None,
) -> None:
    """Run a whole cluster on this machine, each node a process of its own."""
    places = {"metadata": metadata, "storage": storage, "discovery": discovery}
    settings = load(config_file, data=data, host=host, port=port, http_port=http_port, **places).settings
    from mishards.cli.cluster import run

    counts = {"proxy": proxies, "reader": readers, "writer": writers, "builder": builders}
    same = {f"--{name}": str(value) for name, value in {"config": config_file, **places}.items() if value is not None}
    run(settings, counts, same)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=3.0, help="How long queries run through the failures.")] = 10.0,
) -> None:
    """Show the main job end to end on this machine: a cluster, real data, a killed reader, a new one."""
    from mishards.cli.demo import demo as tell

    tell(keep, seconds)


@app.command()
def status(
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Show the nodes with their roles and health, and the collections."""
    settings = load(config_file, data=data, metadata=metadata).settings
    from mishards.cli import show, survey

    found = survey.look(settings)
    show.json(found) if as_json else show.status(found)


@app.command()
def topology(
    collection: Annotated[str, typer.Argument(help="Name or alias.")],
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Show which reader serves which segment of a collection."""
    settings = load(config_file, data=data, metadata=metadata).settings
    from mishards.cli import show, survey

    found = survey.look_at(settings, collection)
    show.json(found) if as_json else show.topology(found)


@config_app.command("show")
def config_show(
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data: Data = None,
    metadata: Metadata = None,
) -> None:
    """Show every setting, its value and where it came from."""
    loaded = load(config_file, data=data, metadata=metadata)
    from mishards.cli import show

    rows = show.setting_rows(loaded)
    show.json(rows) if as_json else show.settings(rows)


def _print_now(line: str) -> None:
    print(line, flush=True)
