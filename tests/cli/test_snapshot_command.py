"""`mishards snapshot` and `mishards backup`: what they print and refuse, without a node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mishards.cli.main import app
from mishards.clock import SystemClock
from mishards.metadata.store import open_store
from mishards.testing.metadata_records import a_collection, a_commit, a_file

runner = CliRunner()
LONG = "a_collection_with_a_name_that_does_not_end_for_a_long_while"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one collection of one inline file."""

    async def fill() -> None:
        store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
        await store.open()
        await store.create_collection(a_collection(name=LONG))
        await store.commit(a_commit("u1", a_file(1)))
        await store.close()

    asyncio.run(fill())
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_snapshots_fit_80_columns(data: Path) -> None:
    """Tables are no wider than 80 characters, whatever names and descriptions there are; JSON has everything."""
    where = ("--data", str(data))
    long = "x" * 200

    made = run("snapshot", "create", LONG, "monday", "--description", long, *where)
    listed = run("snapshot", "list", *where)
    described = run("snapshot", "describe", LONG, "monday", "--json", *where)

    assert made[0] == listed[0] == 0
    for printed in (made[1], listed[1]):
        assert max(map(len, printed.splitlines())) <= 80
        assert "monday" in printed
    shown = json.loads(described[1])
    assert (shown["collection"], shown["version"], shown["rows"], shown["description"]) == (LONG, 1, 3, long)


def test_nothing_to_show(data: Path) -> None:
    """Without snapshots or backups a line says so; as JSON it is an empty list."""
    to = (data / "backups").as_uri()

    assert run("snapshot", "list", "--data", str(data))[1] == "No snapshots yet.\n"
    assert run("backup", "list", "--to", to)[1] == "No backups yet.\n"
    assert json.loads(run("backup", "list", "--to", to, "--json")[1]) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("snapshot", "create", "films", "a"), 1, "collection not found[database=default][collection=films]"),
        (("snapshot", "create", LONG, "a/b"), 1, "Invalid snapshot name: a/b."),
        (("snapshot", "describe", LONG, "never"), 1, f"snapshot not found[collection={LONG}][snapshot=never]"),
        (("snapshot", "restore", LONG, "never", "a-b"), 1, "Invalid collection name: a-b."),
        (("backup", "create", "--to", "pigeon://loft"), 2, "unknown storage 'pigeon'"),
        (("backup", "create", "films", "--to", "file:///tmp"), 1, "collection not found"),
        (("backup", "create", "--to", "file:///tmp", "--name", "../a"), 1, "backup name '../a' is none"),
    ],
)
def test_refusals(data: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """What cannot be done is one line on stderr, and an exit code."""
    found, _, errors = run(*words, "--data", str(data))

    assert found == code
    assert errors.startswith(f"mishards: {said}"), errors
    assert len(errors.splitlines()) == 1


def test_backups_fit_80_columns(data: Path) -> None:
    """A backup of everything is named by its time, and shown in 80 columns; a damaged one is refused by name."""
    to = (data / "backups").as_uri()

    made = run("backup", "create", "--to", to, "--data", str(data))
    (listed,) = json.loads(run("backup", "list", "--to", to, "--json")[1])
    (file,) = (data / "backups" / "backups").iterdir()

    assert made[0] == 0, made[2]
    assert max(map(len, made[1].splitlines())) <= 80
    assert listed["collections"] == [LONG] and file.name == f"{listed['name']}.backup"
    file.write_bytes(file.read_bytes()[:-20])
    code, _, errors = run("backup", "verify", listed["name"], "--to", to)
    assert code == 1 and "corrupt" in errors
