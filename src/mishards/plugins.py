"""Back ends by URL scheme or name, found through entry points exactly as a third party's would be.

A group `mishards.<group>` of entry points holds one kind of back end; the name is a URL's scheme (storage, metadata,
discovery) or what a setting or a client says (router, index). Built-ins are declared in pyproject.toml like any other.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from mishards.errors import SetupError

Group = Literal["storage", "metadata", "discovery", "router", "index"]


class UnknownPluginError(SetupError, LookupError):
    """No back end of that name; the message lists the known ones."""


@cache
def load(group: Group, name: str) -> Any:
    """What the entry point `name` of the group declares. UnknownPluginError; SetupError if it cannot be loaded."""
    declared = _declared(group)
    if name not in declared:
        raise UnknownPluginError(f"unknown {group} '{name}', expected one of: {', '.join(sorted(declared)) or 'none'}")
    try:
        return declared[name].load()
    except (ImportError, AttributeError) as error:
        raise SetupError(f"{group} '{name}' ({declared[name].value}) cannot be loaded: {error}") from error


def names(group: Group) -> tuple[str, ...]:
    """The names known in the group, sorted."""
    return tuple(sorted(_declared(group)))


def scheme(url: str) -> str:
    """The back end's name in a URL: "mysql" of mysql+asyncmy://host/db."""
    return url.partition("://")[0].partition("+")[0].lower()


@cache
def _declared(group: Group) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"mishards.{group}")}
