"""Group commit without a timer (P3): what arrives while a commit of its collection is in flight forms the next.

So a lone request waits for nobody, and under load a commit carries as many as came meanwhile. What waits is bounded in
bytes over all collections (P15).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId
from mishards.wire.messages import WriteReply
from mishards.writer.prepared import PreparedWrite

Outcome = WriteReply | MishardsError
CommitGroup = Callable[[Sequence[PreparedWrite]], Awaitable[Sequence[Outcome]]]  # of each write
Answer = asyncio.Future[WriteReply]


@dataclass(slots=True)
class _Queue:
    """One collection's requests that wait, those in flight, and the task that commits group after group."""

    waiting: deque[tuple[PreparedWrite, Answer]] = field(default_factory=deque)
    in_flight: list[Answer] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Groups:
    """Queues requests and hands them in groups to `commit`, one group a collection at a time."""

    def __init__(self, commit: CommitGroup, clock: Clock, queue_bytes_max: int, group_bytes_max: int) -> None:
        self._commit = commit
        self._clock = clock
        self._queue_bytes_max = queue_bytes_max
        self._group_bytes_max = group_bytes_max
        self.queued_bytes = 0  # that wait for a commit
        self._preparing_bytes = 0
        self._queues: dict[CollectionId, _Queue] = {}
        self._stopping = False

    @contextmanager
    def room(self, bytes: int, has_rows: bool) -> Iterator[None]:
        """A request that is being prepared counts as one that waits. RATE_LIMIT when too much does; deletes are never
        refused."""
        self._check_room(bytes, has_rows)
        self._preparing_bytes += bytes
        try:
            yield
        finally:
            self._preparing_bytes -= bytes

    def submit(self, write: PreparedWrite) -> Answer:
        """The answer to be. RATE_LIMIT when too much waits; deletes are never refused."""
        if self._stopping:
            raise stopping()
        self._check_room(write.bytes, write.has_rows)
        self.queued_bytes += write.bytes
        answer: Answer = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(write.collection_id, _Queue())
        queue.waiting.append((write, answer))
        if queue.task is None:
            queue.task = asyncio.create_task(self._drain(write.collection_id, queue), name="group commit")
        return answer

    def _check_room(self, bytes: int, has_rows: bool) -> None:
        wanted = self.queued_bytes + self._preparing_bytes + bytes
        if wanted > self._queue_bytes_max and has_rows:
            raise MishardsError(
                Kind.RATE_LIMIT,
                f"{wanted} bytes would wait for a commit on this writer; the limit is {self._queue_bytes_max} bytes",
            )

    async def settle(self, collection_id: CollectionId) -> None:
        """Wait until all that was submitted before is committed or refused. To give up waiting changes nothing."""
        queue = self._queues.get(collection_id)
        answers = [] if queue is None else [*queue.in_flight, *(answer for _, answer in queue.waiting)]
        if answers:
            await asyncio.wait(answers)  # a cancelled gather would cancel the answers

    async def stop(self) -> None:
        """Refuse what waits and what comes, and wait for the commits in flight."""
        self._stopping = True
        for queue in self._queues.values():
            while queue.waiting:
                write, answer = queue.waiting.popleft()
                self.queued_bytes -= write.bytes
                _settle(answer, stopping())
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        await asyncio.gather(*tasks)

    async def _drain(self, collection_id: CollectionId, queue: _Queue) -> None:
        while queue.waiting:
            group = self._next_group(queue)
            if group:
                await self._commit_group(queue, group)
        del self._queues[collection_id]

    def _next_group(self, queue: _Queue) -> list[tuple[PreparedWrite, Answer]]:
        """The oldest requests that fit into one commit, at least one; those that are late already are refused."""
        group: list[tuple[PreparedWrite, Answer]] = []
        bytes = 0
        now_s = self._clock.monotonic_s()
        while queue.waiting and (not group or bytes + queue.waiting[0][0].bytes <= self._group_bytes_max):
            write, answer = queue.waiting.popleft()
            self.queued_bytes -= write.bytes
            if write.ends_s <= now_s:
                _settle(answer, MishardsError(Kind.DEADLINE, "the write waited for a commit until its deadline"))
                continue
            group.append((write, answer))
            bytes += write.bytes
        return group

    async def _commit_group(self, queue: _Queue, group: Sequence[tuple[PreparedWrite, Answer]]) -> None:
        queue.in_flight = [answer for _, answer in group]
        outcomes: Sequence[WriteReply | Exception]
        try:
            outcomes = await self._commit([write for write, _ in group])
        except Exception as error:  # travels to each caller
            outcomes = [error] * len(group)
        queue.in_flight = []
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            _settle(answer, outcome)


def stopping() -> MishardsError:
    return MishardsError(Kind.UNAVAILABLE, "this writer is stopping")


def _settle(answer: Answer, outcome: WriteReply | Exception) -> None:
    if isinstance(outcome, MishardsError):  # each caller gets an exception of his own
        answer.set_exception(MishardsError(outcome.kind, outcome.message, outcome.detail))
    elif isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
