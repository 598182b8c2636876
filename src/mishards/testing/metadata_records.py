"""Records as the tests of whatever uses metadata make them: a collection, its files, a commit."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
from msgspec.structs import replace

from mishards.clock import hybrid
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, DataType, Field, FieldId, File, FileId, FileKind, Part, Schema
from mishards.ports import CommitRequest

NOW_MS = 1_700_000_000_000


def a_collection(id: int = 1, name: str = "books", **changes: object) -> Collection:
    """A collection with one key and one vector."""
    fields = (
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="vector", type=DataType.FLOAT_VECTOR, dim=8),
    )
    collection = Collection(
        id=CollectionId(id), name=name, schema=Schema(fields=fields), created_ts=hybrid(1), updated_ts=hybrid(1)
    )
    return replace(collection, **changes)


def a_file(id: int, kind: FileKind = FileKind.ROWS, rows: int = 3) -> File:
    """A file as a writer hands it to a commit; fresh ones are inline."""
    fresh = kind is not FileKind.SEGMENT
    part = Part(kind="fresh" if fresh else "scalars", path="" if fresh else f"1/0/t/{id}.scalars", bytes=10)
    return File(
        id=FileId(id),
        collection_id=CollectionId(1),
        shard=0,
        kind=kind,
        rows=rows,
        bytes=10,
        parts=(part,),
        inline=fresh,
        pk_min=-(2**63),
        pk_max="zürich",
    )


def a_commit(uuid: str, *added: File, removed: tuple[int, ...] = (), **changes: object) -> CommitRequest:
    """A commit to collection 1; inline files get a payload that names them."""
    request = CommitRequest(
        collection_id=CollectionId(1),
        uuid=uuid,
        kind="layout" if removed else "write",
        now_ms=NOW_MS,
        added=added,
        removed=tuple(FileId(id) for id in removed),
        payloads={file.id: b"payload %d" % file.id for file in added if file.inline},
    )
    return replace(request, **changes)


async def refused(kind: Kind, call: Awaitable[object]) -> MishardsError:
    """The call raises an error of that kind."""
    with pytest.raises(MishardsError) as caught:
        await call
    assert caught.value.kind is kind, caught.value
    return caught.value
