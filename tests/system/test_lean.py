"""A reader starts lean: the client's library and what it drags in belong to proxies alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import make_collection
from pymilvus import MilvusClient
from servers import Server

pytestmark = pytest.mark.process


def test_only_proxies_load_the_client_library(server: Server, client: MilvusClient, name: str) -> None:
    """After inserts, searches and a flush a reader has mapped no library of pandas, and nothing of pymilvus or grpc."""
    if server.folder.name.startswith("standalone"):
        pytest.skip("one process has all roles")
    make_collection(client, name, dim=4)
    client.insert(name, [{"id": i, "vector": [1.0, 2.0, 3.0, float(i)]} for i in range(200)])
    client.search(name, [[1.0, 2.0, 3.0, 4.0]], limit=3, output_fields=["*"], consistency_level="Strong")
    client.flush(name)
    client.query(name, filter="id < 50", output_fields=["*"], consistency_level="Strong")

    for role in ("reader", "writer", "builder"):
        for member in server.members(role):
            mapped = Path(f"/proc/{member['pid']}/maps").read_text()
            assert "pandas" not in mapped, role
            assert "grpc" not in mapped, role
