"""A Milvus door over a proxy in memory, and a real Milvus client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fake_proxy import FakeProxy
from pymilvus import MilvusClient
from served import Served

from mishards.api.milvus.door import MilvusDoor
from mishards.config import ProxySettings


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    proxy = FakeProxy()
    door = MilvusDoor(proxy, ProxySettings(request_bytes_max=1 << 20), proxy.clock, "0.1.0", share_port=False)
    port = await door.start("127.0.0.1", 0)
    served = Served(proxy, f"http://127.0.0.1:{port}")
    served.client = await asyncio.to_thread(MilvusClient, served.uri, dedicated=True)
    yield served
    await asyncio.to_thread(served.client.close)
    await door.stop(0)
