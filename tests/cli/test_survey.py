"""`status` and `topology`: what is read, how it is judged, how it is shown."""

import io
import json
from typing import Any, cast

import msgspec
import pytest
from rich.console import Console

from mishards import plugins
from mishards.cli import show
from mishards.cli.survey import Topology, survey, topology
from mishards.errors import Kind, MishardsError
from mishards.model import (
    Collection,
    CollectionId,
    DataType,
    Delta,
    Field,
    FieldId,
    File,
    FileId,
    FileKind,
    Index,
    IndexId,
    Member,
    NodeId,
    Part,
    Partition,
    PartitionId,
    Schema,
    Version,
)
from mishards.ports import Head, MetadataStore
from mishards.wire.messages import NodeStatus

ID = CollectionId(7)
VECTOR = Field(id=FieldId(101), name="vector", type=DataType.FLOAT_VECTOR, dim=4)
BOOKS = Collection(
    id=ID,
    name="books",
    schema=Schema(fields=(Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True), VECTOR)),
    created_ts=1,
    updated_ts=1,
    partitions=(Partition(PartitionId(1), "_default", 1),),
    aliases=("library",),
    indexes=(Index(id=IndexId(5), name="v", field_id=FieldId(101), type="HNSW", metric="L2"),),
    loaded=True,
    replicas=2,
)


def segment(number: int, *, rows: int = 1000, dead: int = 0, index: bool = True, removed: int = 0) -> File:
    parts = (Part(kind="index", path="p", bytes=1, field_id=FieldId(101), index_id=IndexId(5)),) if index else ()
    return File(
        id=FileId(number),
        collection_id=ID,
        shard=0,
        kind=FileKind.SEGMENT,
        rows=rows,
        bytes=1 << 20,
        added=Version(1),
        removed=Version(removed),
        partition_id=PartitionId(1),
        segment_id=FileId(number),
        dead=dead,
        parts=parts,
    )


FRESH = File(id=FileId(90), collection_id=ID, shard=0, kind=FileKind.ROWS, rows=30, bytes=500, added=Version(9))
FILES = (segment(1), segment(2, dead=100), segment(3, index=False), segment(4, removed=5), FRESH)


class Catalogue:
    """The part of the metadata service that a survey reads."""

    def __init__(self, members: tuple[Member, ...], files: tuple[File, ...] | None = FILES) -> None:
        self._members = members
        self._files = files

    async def members(self) -> list[Member]:
        return list(self._members)

    async def heads(self) -> list[Head]:
        return [] if self._files is None else [Head(ID, Version(9), 1)]

    async def collections(self, ids: list[CollectionId]) -> list[tuple[Collection, int]]:
        return [(BOOKS, 1) for _ in ids]

    async def delta(self, collection_id: CollectionId, after: Version) -> Delta:
        return Delta(collection_id=ID, after=after, version=Version(9), ts=1, head="h", added=self._files or ())


def catalogue(*members: Member, files: tuple[File, ...] | None = FILES) -> MetadataStore:
    return cast(MetadataStore, Catalogue(members, files))


def reader(number: int) -> Member:
    return Member(id=NodeId(f"reader-{number}"), roles=("reader",), address=f"tcp://127.0.0.1:700{number}", pid=number)


PROXY = Member(id=NodeId("proxy-1"), roles=("proxy",), address="tcp://127.0.0.1:7000", pid=9)


async def ask(member: Member) -> NodeStatus:
    """Reader 1 holds everything, reader 2 nothing yet, reader 3 is dead."""
    if member.id == "reader-3":
        raise MishardsError(Kind.PEER_LOST, "peer tcp://127.0.0.1:7003 lost: connection refused")
    held: dict[int, tuple[FileId, ...]] = {7: (FileId(1), FileId(2), FileId(3))} if member.id == "reader-1" else {}
    at = 9 if member.id == "reader-1" else 8
    return NodeStatus(member.id, member.roles, "ready", 125.0, 300 << 20, 2, {7: at, 8: 1}, held)


def printed(draw: Any, found: Any) -> str:
    output = io.StringIO()
    draw(found, Console(file=output, width=80))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


async def books(*members: Member, files: tuple[File, ...] | None = FILES) -> Topology:
    return await topology(catalogue(*members, files=files), ask, plugins.load("router", "capped"), "library")


async def test_status_tells_who_answers_and_how_far_they_are() -> None:
    """Members that answer have their numbers, the others say why not; collections count live files only."""
    found = await survey(catalogue(PROXY, reader(1), reader(2), reader(3)), ask)

    assert [(m.id, m.answers, m.state) for m in found.members] == [
        ("proxy-1", True, "ready"),
        ("reader-1", True, "ready"),
        ("reader-2", True, "ready"),
        ("reader-3", False, "no answer"),
    ]
    assert found.members[1].applied == {"books": 9}
    (collection,) = found.collections
    assert (collection.version, collection.readers_at) == (9, 8)
    assert (collection.rows_stored, collection.segments, collection.fresh_files) == (2930, 3, 1)


async def test_status_table_fits_80_columns() -> None:
    """The tables name every node and collection, and the reason why a node does not answer."""
    text = printed(show.status, await survey(catalogue(PROXY, reader(1), reader(3)), ask))

    assert "reader-1" in text
    assert "2m 5s" in text
    assert "300 MiB" in text
    assert "reader-3 does not answer: peer tcp://127.0.0.1:7003 lost" in text
    assert "2,930" in text


async def test_status_of_nothing_is_said_in_words() -> None:
    """Without nodes and collections there are sentences instead of empty tables."""
    text = printed(show.status, await survey(catalogue(files=None), ask))

    assert text == "No node is running. Start one with: mishards serve\nNo collections yet.\n"


async def test_topology_tells_who_serves_and_who_loads() -> None:
    """A segment is ready where it is held, placed on `replicas` readers that answer; removed ones are absent."""
    found = await books(PROXY, reader(1), reader(2), reader(3))

    assert [(s.segment, s.rows, s.dead, s.index, s.ready) for s in found.segments] == [
        (1, 1000, 0, "HNSW", ("reader-1",)),
        (2, 1000, 100, "HNSW", ("reader-1",)),
        (3, 1000, 0, "exact", ("reader-1",)),
    ]
    assert all(set(s.placed) == {"reader-1", "reader-2"} for s in found.segments)
    (tail,) = found.tails
    assert (tail.files, tail.rows, tail.ready) == (1, 30, ("reader-1",))
    assert set(tail.placed) == {"reader-1", "reader-2"}


async def test_topology_table_marks_readers() -> None:
    """Rows are segments and fresh rows, columns are readers: a full mark serves, an empty one loads."""
    lines = printed(show.topology, await books(reader(1), reader(2))).splitlines()

    assert lines[0] == "Collection books at version 9, 2 replicas"
    (row,) = [line.split() for line in lines if line.startswith(" 2 ")]
    assert row == ["2", "_default", "900", "1.0", "MiB", "HNSW", "●", "○"]
    (fresh,) = [line.split() for line in lines if line.startswith(" fresh, shard 0")]
    assert fresh == ["fresh,", "shard", "0", "30", "500", "B", "●", "○"]
    assert "   2  reader-2  ready  tcp://127.0.0.1:7002" in lines


async def test_wide_clusters_get_several_tables() -> None:
    """Twenty-five readers still fit 80 columns."""
    text = printed(show.topology, await books(*(reader(i) for i in range(10, 35))))

    assert text.count(" segment ") == 4


async def test_topology_without_rows_or_readers_is_said_in_words() -> None:
    """Nothing stored and nobody there are sentences."""
    text = printed(show.topology, await books(files=()))

    assert "No reader is running." in text
    assert "It has no rows yet." in text


async def test_unknown_collection_is_not_found() -> None:
    """A name that is neither a collection nor an alias is COLLECTION_NOT_FOUND."""
    with pytest.raises(MishardsError) as error:
        await topology(catalogue(), ask, plugins.load("router", "capped"), "films")

    assert error.value.kind is Kind.COLLECTION_NOT_FOUND


async def test_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON form carries everything that the view holds."""
    found = await books(reader(1))
    show.json(found)

    assert json.loads(capsys.readouterr().out) == json.loads(msgspec.json.encode(found))


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 << 20, "300 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_short(amount: int, text: str) -> None:
    """A size is a few digits and a unit."""
    assert show.size(amount) == text


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "5s"), (125, "2m 5s"), (7260, "2h 1m"), (90000, "1d 1h")])
def test_times_are_short(seconds: float, text: str) -> None:
    """A time is its two largest units."""
    assert show.span(seconds) == text
