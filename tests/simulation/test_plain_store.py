"""The metadata service of most simulated runs keeps the contract that the SQL databases keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mishards.clock import SystemClock
from mishards.testing.metadata_suite import MetadataSuite
from mishards.testing.sim.plain_store import PlainStore


class Client:
    """Reaches the store a moment later, so that others get their turn."""

    def __init__(self, store: PlainStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return await getattr(self._store, name)(*arguments, **options)

        return call


class TestPlainStore(MetadataSuite):
    """Two clients of one store."""

    @pytest.fixture
    def store(self) -> Any:
        return Client(PlainStore(SystemClock().unix_ms))

    @pytest.fixture
    def other(self, store: Any) -> Any:
        return store
