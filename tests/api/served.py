"""A served proxy, as the door's tests see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fake_proxy import FakeProxy

T = TypeVar("T")


class Served:
    """The door's proxy and a client of it; `run` calls the client in a thread, as it blocks."""

    def __init__(self, proxy: FakeProxy, uri: str) -> None:
        self.proxy = proxy
        self.uri = uri
        self.client: Any = None

    async def run(self, call: Callable[[Any], T]) -> T:
        return await asyncio.wait_for(asyncio.to_thread(call, self.client), 20)

    def last(self, kind: type[T]) -> T:
        """The newest request of that type that the proxy saw."""
        return next(request for request in reversed(self.proxy.seen) if isinstance(request, kind))
