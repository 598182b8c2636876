"""Storage and the metadata service as processes reach them: what arrives there happens, whatever became of the caller.

The metadata service is a store behind the simulated way to it (see `database`); storage is a dictionary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mishards.errors import Kind, MishardsError
from mishards.model import Commit
from mishards.ports import CommitRequest
from mishards.testing.sim.faults import Fate, Faults, Shares
from mishards.testing.sim.loop import PROCESS, WORLD, Process, SimLoop

OUTAGE_ANSWER_S = 0.05  # a service that is down refuses ...
CUT_OFF_ANSWER_S = 1.0  # ... a way that is cut lets the caller wait

DEFINING = frozenset({"create_collection", "replace_collections", "drop_collection"})  # methods of the store

Trace = Callable[[str], None]


class Service:
    """One service outside of the processes: down at times, for all or for some of them."""

    def __init__(self, loop: SimLoop, faults: Faults, shares: Shares, kind: Kind, waits: bool = False) -> None:
        """`waits`: what it does, it does in turns of the loop."""
        self.loop = loop
        self.faults = faults
        self.down = False
        self.cut_off: set[str] = set()  # names of processes that do not reach it
        self.failed_s: dict[str, float] = {}  # when a process last got no answer from it
        self.trace: Trace = lambda line: None
        self._shares = shares
        self._kind = kind
        self._waits = waits

    async def call(self, name: str, work: Callable[[], Awaitable[Any]], torn: Callable[[], None] | None = None) -> Any:
        """The result of `work`, which is done when the call arrives. Cancelling it stops nothing that is under way."""
        process = PROCESS.get()
        answer: asyncio.Future[Any] = self.loop.create_future()
        if process is not None and process.name in self.cut_off:
            await asyncio.sleep(CUT_OFF_ANSWER_S)
            self.failed_s[process.name] = self.loop.time()
            raise self.error(f"no answer to {name}")
        fate = self.faults.fate(self._shares)
        if fate.outcome != "done":
            self.trace(f"{name} of {process and process.name}: {fate.outcome}")
        self.loop.call_later(fate.before_s, self._arrive, name, work, torn, fate, answer, process, context=WORLD)
        return await answer

    def error(self, message: str) -> MishardsError:
        return MishardsError(self._kind, message)

    def _arrive(
        self,
        name: str,
        work: Callable[[], Awaitable[Any]],
        torn: Callable[[], None] | None,
        fate: Fate,
        answer: asyncio.Future[Any],
        process: Process | None,
    ) -> None:
        if self.down or fate.outcome == "lost":
            delay_s = OUTAGE_ANSWER_S if self.down else fate.after_s
            self._answer(answer, delay_s, process, None, self.error(f"{name} failed before it was done"))
            return
        if fate.outcome == "torn" and torn is not None:
            torn()
            self._answer(answer, fate.after_s, process, None, self.error(f"{name} failed halfway"))
            return
        working = self._work(name, work, fate, answer, process)
        if self._waits:
            self.loop.create_task(working, context=WORLD)
        else:
            _run_through(working)

    async def _work(
        self,
        name: str,
        work: Callable[[], Awaitable[Any]],
        fate: Fate,
        answer: asyncio.Future[Any],
        process: Process | None,
    ) -> None:
        result, error = None, None
        try:
            result = await work()
        except Exception as failure:
            error = failure
        if fate.outcome == "unanswered":
            result, error = None, self.error(f"the answer to {name} was lost")
        self._answer(answer, fate.after_s, process, result, error)

    def _answer(
        self,
        answer: asyncio.Future[Any],
        delay_s: float,
        process: Process | None,
        result: Any,
        error: Exception | None,
    ) -> None:
        context = WORLD if process is None else process.context
        if process is not None and isinstance(error, MishardsError) and error.kind is self._kind:
            self.failed_s[process.name] = max(self.failed_s.get(process.name, 0.0), self.loop.time() + delay_s)
        self.loop.call_later(delay_s, _settle, answer, result, error, context=context)


def _run_through(working: Coroutine[Any, Any, None]) -> None:
    """A coroutine that waits for nothing needs no task."""
    try:
        working.send(None)
    except StopIteration:
        return
    raise RuntimeError("it waits")


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return  # its caller gave up
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


class SimStorage:
    """`ports.Storage` in memory. `objects` is the truth; `torn` are paths whose content is incomplete."""

    def __init__(self, service: Service, on_delete: Callable[[str], None]) -> None:
        """`on_delete` is told of each path before it goes."""
        self._on_delete = on_delete
        self.objects: dict[str, bytes] = {}
        self.torn: set[str] = set()
        self.service = service

    async def put(self, path: str, data: bytes | memoryview) -> None:
        content = bytes(data)

        async def store() -> None:
            self.objects[path] = content
            self.torn.discard(path)

        def tear() -> None:
            if path not in self.objects:
                self.objects[path] = content[: len(content) // 2]
                self.torn.add(path)

        await self.service.call(f"put {path}", store, tear)

    async def put_file(self, path: str, source: Path) -> None:
        await self.put(path, source.read_bytes())  # noqa: ASYNC240 - nothing waits in a simulation

    async def get(self, path: str) -> bytes:
        async def read() -> bytes:
            if path not in self.objects:
                raise MishardsError(Kind.GONE, f"object '{path}' does not exist")
            return self.objects[path]

        found: bytes = await self.service.call(f"get {path}", read)
        return found

    async def fetch(self, path: str, destination: Path) -> None:
        destination.write_bytes(await self.get(path))  # noqa: ASYNC240

    async def delete(self, paths: Sequence[str]) -> None:
        async def delete() -> None:
            for path in paths:
                self._on_delete(path)
                self.objects.pop(path, None)
                self.torn.discard(path)

        await self.service.call(f"delete {len(paths)} objects", delete)

    async def list(self, prefix: str) -> list[str]:
        async def find() -> list[str]:
            return sorted(path for path in self.objects if path.startswith(prefix))

        found: list[str] = await self.service.call(f"list {prefix}", find)
        return found


class SimStore:
    """`ports.MetadataStore`: the one there is, reached over the simulated way."""

    def __init__(
        self,
        inner: Any,
        service: Service,
        on_commit: Callable[[CommitRequest, Commit], None],
        on_define: Callable[[str, tuple[Any, ...]], None],
    ) -> None:
        """`on_commit` is told of each commit when it happens, before anybody else can see it; `on_define` of each call
        that changes a definition."""
        self._inner = inner
        self._service = service
        self._on_commit = on_commit
        self._on_define = on_define

    async def open(self) -> None:
        """The world has opened it."""

    async def close(self) -> None:
        """The world will close it."""

    async def commit(self, request: CommitRequest) -> Commit:
        async def commit() -> Commit:
            done: Commit = await self._inner.commit(request)
            self._on_commit(request, done)
            return done

        committed: Commit = await self._service.call(f"commit {request.uuid[:6]}", commit)
        return committed

    async def _define(self, name: str, *arguments: Any) -> None:
        await getattr(self._inner, name)(*arguments)
        self._on_define(name, arguments)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        work = partial(self._define, name) if name in DEFINING else getattr(self._inner, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await self._service.call(name, partial(work, *arguments, **options))

        self.__dict__[name] = call
        return call
