"""Tables for people, in 80 columns, and JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mishards.cli.survey import CollectionView, NodeView, SegmentView, Survey, TailView, Topology
from mishards.config import Loaded, masked, values
from mishards.model import ROLES

READERS_PER_TABLE = 8  # columns of readers that fit beside a segment's in 80
SERVES, LOADING = "●", "○"


def json(found: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")


# -------------------------------------------------------------------------------------------------------------- status


def status(found: Survey, console: Console | None = None) -> None:
    """The nodes and the collections."""
    console = console or Console(highlight=False)
    if not found.members:
        console.print("No node is running. Start one with: mishards serve")
    else:
        console.print(_nodes(found.members))
    for node in found.members:
        if node.problem:
            console.print(f"{node.id} does not answer: {node.problem}", markup=False)
    if not found.collections:
        console.print("No collections yet.")
    else:
        console.print(_collections(found.collections))


def _nodes(members: Iterable[NodeView]) -> Table:
    table = new_table("node", "roles", "state", ">up", ">memory", ">busy", "address")
    for node in members:
        numbers = (span(node.uptime_s), size(node.memory_bytes), str(node.in_flight)) if node.answers else ("", "", "")
        address = node.address.removeprefix("tcp://")
        table.add_row(node.id, _roles(node.roles), node.state, *numbers, address)
    return table


def _collections(collections: Iterable[CollectionView]) -> Table:
    table = new_table("collection", ">version", ">readers at", ">rows stored", ">segments", ">fresh", "loaded")
    for found in collections:
        at = "-" if found.readers_at is None else str(found.readers_at)
        loaded = f"{found.replicas}x" if found.loaded else "no"
        numbers = (found.version, at, f"{found.rows_stored:,}", found.segments, found.fresh_files)
        table.add_row(found.name, *map(str, numbers), loaded)
    return table


# ------------------------------------------------------------------------------------------------------------ topology


def topology(found: Topology, console: Console | None = None) -> None:
    """Segments by readers. Readers are numbered, as their names do not fit above the marks."""
    console = console or Console(highlight=False)
    console.print(f"Collection {found.collection} at version {found.version}, {_load_state(found)}", markup=False)
    if not found.readers:
        console.print("No reader is running.")
    if not found.segments and not any(tail.files for tail in found.tails):
        console.print("It has no rows yet.")
        return
    for start in range(0, max(1, len(found.readers)), READERS_PER_TABLE):
        console.print(_marks(found, start))
    for number, reader in enumerate(found.readers, 1):
        console.print(f"  {number:>2}  {reader.id}  {reader.state}  {reader.address}", markup=False)
    if found.readers:
        console.print(f"{SERVES} serves   {LOADING} placed there, loading")


def _marks(found: Topology, start: int) -> Table:
    readers = [reader.id for reader in found.readers[start : start + READERS_PER_TABLE]]
    numbers = [str(number) for number in range(start + 1, start + 1 + len(readers))]
    table = new_table("segment", "partition", ">rows", ">size", "index")
    table.add_column(_aligned(numbers), no_wrap=True)
    for segment in found.segments:
        live = f"{segment.rows - segment.dead:,}"
        described = (str(segment.segment), segment.partition, live, size(segment.bytes), segment.index)
        table.add_row(*described, _aligned(_marks_of(segment, readers)))
    for tail in found.tails:
        described = (f"fresh, shard {tail.shard}", "", f"{tail.rows:,}", size(tail.bytes), "")
        table.add_row(*described, _aligned(_marks_of(tail, readers)))
    return table


def _marks_of(item: SegmentView | TailView, readers: Iterable[str]) -> list[str]:
    return [SERVES if node in item.ready else LOADING if node in item.placed else "" for node in readers]


def _aligned(cells: Iterable[str]) -> str:
    return " ".join(f"{cell:>2}" for cell in cells)


def _load_state(found: Topology) -> str:
    if not found.loaded:
        return "not loaded"
    return f"{found.replicas} replica{'s' if found.replicas != 1 else ''}"


# ------------------------------------------------------------------------------------------------------------ settings


def setting_rows(loaded: Loaded) -> list[dict[str, Any]]:
    """Every setting with its value (passwords hidden) and origin."""
    return [
        {"key": key, "value": masked(value) if isinstance(value, str) else value, "origin": loaded.origins[key]}
        for key, value in values(loaded.settings).items()
    ]


def settings(rows: Iterable[dict[str, Any]], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    table = new_table("setting", "value", "from")
    for row in rows:
        table.add_row(row["key"], str(row["value"]), row["origin"])
    console.print(table)


# --------------------------------------------------------------------------------------------------------------- cells


def processes(rows: Iterable[tuple[str, str, int]], console: Console) -> None:
    """The processes of a cluster on this machine: (name, role, pid)."""
    table = new_table("process", "role", ">pid")
    for name, role, pid in rows:
        table.add_row(name, role, str(pid))
    console.print(table)


def size(amount: float) -> str:
    """A number of bytes in three or four characters and a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def when(unix_ms: int) -> str:
    """A moment, in UTC."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    if minutes:
        return f"{minutes}m {int(seconds) % 60}s"
    return f"{int(seconds)}s"


def _roles(roles: Sequence[str]) -> str:
    return "all" if set(roles) == set(ROLES) else ",".join(roles)


def new_table(*columns: str) -> Table:
    """A table without frame; a column name that starts with > is flush right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table
