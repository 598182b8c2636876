"""`mishards metadata`: what it prints, writes and refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from mishards.cli.audit import broken_links
from mishards.cli.main import app
from mishards.clock import SystemClock
from mishards.metadata.echo import Echo, encode, path_of
from mishards.metadata.store import open_store
from mishards.model import CollectionId, Commit, Delta, FileKind, Version
from mishards.storage.file import open_storage
from mishards.testing.metadata_records import a_collection, a_commit, a_file

runner = CliRunner()


def run(data: Path, *arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, ["metadata", *arguments, "--data", str(data)])
    return result.exit_code, result.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one collection: an inline file and a segment whose one object is stored."""

    async def fill() -> None:
        store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
        await store.open()
        await store.create_collection(a_collection(aliases=("novels",)))
        segment = a_file(2, FileKind.SEGMENT)
        await store.commit(a_commit("u1", a_file(1)))
        await store.commit(a_commit("u2", segment))
        await store.close()
        await open_storage((tmp_path / "storage").as_uri()).put(segment.parts[0].path, b"0123456789")

    asyncio.run(fill())
    return tmp_path


def sql(data: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{data}/metadata.db")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_check_says_that_all_is_well(data: Path) -> None:
    """One line with the numbers, exit code 0."""
    code, printed = run(data, "check")

    assert code == 0, printed
    assert printed.endswith("1 collections, 2 commits, 2 files, 1 objects: 0 problems\n")


def test_check_names_what_is_wrong(data: Path) -> None:
    """A missing object, a missing payload, a name that leads nowhere: each is a line, and the exit code is 1."""
    (data / "storage/1/0/t/2.scalars").unlink()
    sql(data, "DELETE FROM payloads")
    sql(data, "UPDATE names SET collection_id = 7 WHERE name = 'novels'")

    code, printed = run(data, "check", "--json")
    problems = json.loads(printed)["problems"]

    assert code == 1
    assert len(problems) == 3
    for said in ("alias of collection 7", "payload of file 1 is missing", "1/0/t/2.scalars of file 2 is missing"):
        assert any(said in problem for problem in problems), said


def test_check_deep_reads_the_objects(data: Path) -> None:
    """What is no file of ours is told, though its size is right."""
    code, printed = run(data, "check", "--deep")

    assert code == 1
    assert "object 1/0/t/2.scalars" in printed


def test_broken_chains_are_told() -> None:
    """A gap, a link to another commit, a head that is not the last one (I2)."""

    def link(version: int, previous: str) -> Commit:
        collection_id = CollectionId(1)
        uuid = f"u{version}"
        return Commit(
            collection_id=collection_id,
            version=Version(version),
            uuid=uuid,
            previous=previous,
            kind="write",
            ts=version,
        )

    def told(head: int, *chain: Commit) -> int:
        delta = Delta(collection_id=CollectionId(1), after=Version(0), version=Version(head), ts=9, head=f"u{head}")
        return len(list(broken_links(delta, chain)))

    assert told(5, link(4, "u3"), link(5, "u4")) == 0
    assert told(4, link(4, "u3"), link(5, "u4")) == 0  # a commit since
    assert told(5, link(3, "u2"), link(5, "u4")) == 1
    assert told(5, link(4, "u3"), link(5, "x")) == 1
    assert told(6, link(4, "u3"), link(5, "u4")) == 1


def test_upgrade_migrates_an_empty_database(tmp_path: Path) -> None:
    """And says so; a second time there is nothing to do."""
    first, second = run(tmp_path, "upgrade"), run(tmp_path, "upgrade")

    assert first[0] == second[0] == 0
    assert first[1].endswith(", was none\n")
    assert second[1] == first[1].partition(",")[0] + "\n"


def test_export_writes_every_record(data: Path) -> None:
    """A line of JSON for each row, to a file or standard output."""
    code, printed = run(data, "export", str(data / "all.jsonl"))
    rows = [json.loads(line) for line in (data / "all.jsonl").read_text().splitlines()]
    streamed = run(data, "export")[1].splitlines()

    assert code == 0 and printed.startswith(f"{len(rows)} records")
    assert {row["table"] for row in rows} == {"collections", "commits", "counters", "files", "names", "payloads"}
    assert [row["row"]["data"] for row in rows if row["table"] == "payloads"] == ["cGF5bG9hZCAx"]
    assert len(streamed) == len(rows)


def test_rebuild_wants_an_empty_database(data: Path) -> None:
    """What is there is never mixed with what was."""
    result = runner.invoke(app, ["metadata", "rebuild", "--data", str(data)])

    assert result.exit_code == 1
    assert "not empty: it has 1 collections" in result.stderr


def test_rebuild_tells_how_far_it_came(tmp_path: Path) -> None:
    """Versions and times of what is back, under other names where two had one; what is not whole, and why. Of two
    echoes the newer one counts, unless it is damaged."""
    storage = open_storage((tmp_path / "storage").as_uri())

    def echo(id: int, version: int, **changes: object) -> Echo:
        collection = a_collection(id, "books", created_ts=id, aliases=("novels",))
        return Echo(collection=collection, version=Version(version), ts=1, head="u", at_ms=1_700_000_000_000, **changes)

    async def fill() -> None:
        for each in (echo(1, 3), echo(1, 4), echo(2, 9), echo(3, 1, files=(a_file(5, FileKind.SEGMENT),))):
            await storage.put(path_of(each, f"t{each.version}"), encode(each))
        await storage.put(path_of(echo(2, 10), "t"), b"{}")

    asyncio.run(fill())
    code, printed = run(tmp_path, "rebuild")
    lines = printed.replace("\n", " ")

    assert code == 1
    assert "books_1: as of 2023-11-14 22:13:20 UTC, version 4" in lines
    assert "books: as of 2023-11-14 22:13:20 UTC, version 9" in lines
    assert "without the aliases novels" in lines
    assert "is damaged" in lines
    assert "1 objects are missing, such as 1/0/t/5.scalars" in lines
    assert "2 collections restored" in lines
    assert run(tmp_path, "check")[0] == 0
