"""Servers are lean: what the client's library drags in stays out, and Milvus' messages belong to proxies alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import make_collection
from pymilvus import MilvusClient
from servers import Server

pytestmark = pytest.mark.process


def test_servers_load_only_what_they_need(server: Server, client: MilvusClient, name: str) -> None:
    """After inserts, searches and a flush no process has mapped pandas or grpc, and only proxies have protobuf."""
    make_collection(client, name, dim=4)
    client.insert(name, [{"id": i, "vector": [1.0, 2.0, 3.0, float(i)]} for i in range(200)])
    client.search(name, [[1.0, 2.0, 3.0, 4.0]], limit=3, output_fields=["*"], consistency_level="Strong")
    client.flush(name)
    client.query(name, filter="id < 50", output_fields=["*"], consistency_level="Strong")

    for role in ("proxy", "reader", "writer", "builder"):
        members = server.members(role)
        assert members
        for member in members:
            mapped = Path(f"/proc/{member['pid']}/maps").read_text()
            assert "pandas" not in mapped, role
            assert "grpc" not in mapped, role
            assert ("google/_upb" in mapped) == ("proxy" in member["roles"]), role
