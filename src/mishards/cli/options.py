"""Options that several commands have, and the settings that follow from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mishards import config

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", metavar="FILE")]
Data = Annotated[str | None, typer.Option(help="Data directory (./mishards-data).", metavar="DIR")]
Metadata = Annotated[str | None, typer.Option(help="Metadata service (sqlite:///DIR/metadata.db).", metavar="URL")]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Shared storage (file://DIR/storage).", metavar="URL")
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, complete.")]


def load(file: Path | None, **flags: str | int | None) -> config.Loaded:
    """The settings of this program, with these flags where they are given."""
    return config.load(file, os.environ, flags)
