"""What a read sees of the writes before it, at each of Milvus' consistency levels (P10, I7-I9)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from making import make_collection
from pymilvus import MilvusClient
from servers import Server, eventually

pytestmark = pytest.mark.process

ROUNDS = 30
BOUND_S = 5.0  # proxy.bounded_staleness_s


@pytest.fixture
def other(server: Server) -> Iterator[MilvusClient]:
    """A client that knows nothing of the first one's writes: another connection, other caches."""
    client = server.client(server.other_uri, timeout=30.0)
    yield client
    client.close()


def _rows(key: int) -> list[dict[str, object]]:
    return [{"id": key, "vector": [float(key), 0.0]}]


def _found(client: MilvusClient, name: str, key: int, level: str) -> bool:
    """Whether a search and a query both see the row; they must agree where the level is that strict."""
    hits = client.search(name, [[float(key), 0.0]], limit=1, consistency_level=level)[0]
    rows = client.query(name, filter=f"id == {key}", output_fields=["id"], consistency_level=level)
    searched = any(hit["id"] == key for hit in hits)
    if level in ("Strong", "Session"):
        assert searched == bool(rows)
    return searched and bool(rows)


def test_strong_sees_every_acknowledged_write(client: MilvusClient, other: MilvusClient, name: str) -> None:
    """A Strong read of any client sees each insert, upsert and delete acknowledged before it began (I7)."""
    make_collection(client, name, dim=2)

    for key in range(ROUNDS):
        client.insert(name, _rows(key))
        assert _found(other, name, key, "Strong")
        client.delete(name, ids=[key])
        assert not _found(other, name, key, "Strong")
        other.upsert(name, _rows(key))
        assert _found(client, name, key, "Strong")


def test_session_reads_its_own_writes(client: MilvusClient, name: str) -> None:
    """A Session read sees each write of its own client at once (I8)."""
    make_collection(client, name, dim=2, consistency_level="Session")

    for key in range(ROUNDS):
        client.insert(name, _rows(key))
        assert _found(client, name, key, "Session")
        client.delete(name, ids=[key])
        assert not _found(client, name, key, "Session")


def test_the_level_of_the_collection_is_the_default(client: MilvusClient, other: MilvusClient, name: str) -> None:
    """A read that names no level has the collection's."""
    make_collection(client, name, dim=2, consistency_level="Strong")
    assert client.describe_collection(name)["consistency_level"] == 0

    for key in range(ROUNDS):
        client.insert(name, _rows(key))
        assert other.query(name, filter=f"id == {key}", output_fields=["id"]) == [{"id": key}]


@pytest.mark.parametrize("level", ["Bounded", "Eventually"])
def test_weaker_levels_see_a_write_soon(client: MilvusClient, other: MilvusClient, name: str, level: str) -> None:
    """A Bounded or Eventually read of another client sees a write within the bound (I9)."""
    make_collection(client, name, dim=2)

    for key in range(5):
        client.insert(name, _rows(key))
        eventually(lambda key=key: _found(other, name, key, level), BOUND_S, f"row {key} visible")  # type: ignore[misc]
