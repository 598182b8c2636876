"""One simulated process: the real server without its doors to clients, in the world's storage and metadata service."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from mishards.config import Settings
from mishards.ports import MetadataStore, Storage
from mishards.proxy.node import ProxyNode
from mishards.server.node import Server
from mishards.testing.sim.clocks import SimClock
from mishards.testing.sim.faults import Faults
from mishards.testing.sim.loop import WORLD, Process, SimLoop
from mishards.wire.messages import Nothing, Notice

T = TypeVar("T")

NOTICE_LATE_S = 2.0


class LostError(Exception):
    """Nobody knows what the process that was asked did. `silent`: it lives and runs, and did not answer in time."""

    def __init__(self, message: str, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class SimServer(Server):
    """The server of one process."""

    def __init__(
        self, settings: Settings, clock: SimClock, store: MetadataStore, storage: Storage, faults: Faults
    ) -> None:
        super().__init__(settings, clock)
        self._sim_store = store
        self._sim_storage = storage
        self._faults = faults

    @property
    def proxy(self) -> ProxyNode:
        assert self._proxy is not None, f"{self.node_id} is no proxy"
        return self._proxy

    @property
    def metadata_lost(self) -> bool:
        """Whether it has not heard of the metadata service since a question to it failed."""
        return self._mirror.lost

    def heard_s(self, since_s: float) -> float:
        """When it first had the metadata service's answer to a question that it asked after that; inf: not yet."""
        rounds: list[tuple[float, float]] = getattr(self._mirror, "rounds", [])
        later = bisect_left(rounds, (since_s, 0.0))
        return rounds[later][1] if later < len(rounds) else float("inf")

    async def notify(self, request: Notice) -> Nothing:
        """A push may be lost, come twice, or late and so out of order (I16)."""
        faults = self._faults
        if faults.active and faults.random.random() < faults.notice_share:
            fate = faults.random.choice(faults.notice_fates)
            if fate == "lost":
                return Nothing()
            delay_s = faults.random.expovariate(1 / NOTICE_LATE_S)
            asyncio.get_running_loop().call_later(delay_s, self._take, request)
            if fate == "late":
                return Nothing()
        return await super().notify(request)

    def _take(self, request: Notice) -> None:
        if request.delta is None or not self._mirror.apply(request.delta):
            self._mirror.hint()

    async def _open_store(self) -> MetadataStore:
        return self._sim_store

    async def _open_storage(self) -> Storage:
        return self._sim_storage

    async def _open_milvus_door(self, proxy: ProxyNode, parts: AsyncExitStack) -> None:
        """Clients call the proxy's methods."""

    async def _open_http_door(self, parts: AsyncExitStack) -> None:
        """Nobody asks for its health."""


class Node:
    """A process of the cluster with its server. A restart makes a new one with the same settings."""

    def __init__(self, loop: SimLoop, process: Process, server: SimServer) -> None:
        self.process = process
        self.server = server
        self.ready = False
        self._loop = loop
        self._calls: dict[asyncio.Future[Any], asyncio.Task[Any]] = {}

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def roles(self) -> tuple[str, ...]:
        return self.server.roles

    async def call(self, make: Callable[[], Coroutine[Any, Any, T]], patience_s: float) -> T:
        """What a client gets that asks this process. LostError: it died, or said nothing for so long."""
        began_s = self._loop.time()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_soon(self._begin, make, answer, context=self.process.context)
        try:
            async with asyncio.timeout(patience_s):
                return await answer
        except TimeoutError:
            silent = self.ready and self.process.ran_since(began_s)
            raise LostError(f"{self.name} did not answer within {patience_s:g} s", silent) from None
        finally:
            task = self._calls.pop(answer, None)
            if task is not None and not task.done():
                self._loop.call_soon(task.cancel, context=self.process.context)

    def kill(self) -> None:
        """At once, without a word. Its clients' connections break."""
        self.ready = False
        self.process.kill()
        for answer in self._calls:
            self._loop.call_later(0.001, _lose, answer, self.name, context=WORLD)

    def _begin(self, make: Callable[[], Coroutine[Any, Any, T]], answer: asyncio.Future[T]) -> None:
        if answer.done():
            return
        task = self._loop.create_task(make())
        self._calls[answer] = task
        task.add_done_callback(partial(_answer, answer))


def _answer(answer: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    if answer.done():
        return
    if task.cancelled():
        answer.set_exception(LostError("the request was cut off"))
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())


def _lose(answer: asyncio.Future[Any], name: str) -> None:
    if not answer.done():
        answer.set_exception(LostError(f"{name} died"))
