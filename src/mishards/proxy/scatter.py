"""Sending the parts of one plan to readers and gathering their answers (P17).

One request per node. A part that failed because of its node is sent at once to other ready replicas, as long as the
deadline and the retry budget last; a part that asks for another plan (`ReplanError`) ends the attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, File, NodeId, Version
from mishards.proxy.assign import Choices, Part
from mishards.proxy.hedging import Budget, Hedging
from mishards.proxy.readers import Readers
from mishards.proxy.telling import Telling
from mishards.proxy.together import all_of
from mishards.wire.peers import Peers
from mishards.wire.services import ReaderService

ELSEWHERE = frozenset(
    {
        Kind.PEER_LOST,
        Kind.UNAVAILABLE,
        Kind.RATE_LIMIT,
        Kind.STORAGE_UNAVAILABLE,
        Kind.METADATA_UNAVAILABLE,  # fresh rows lie there, too
        Kind.NOT_CAUGHT_UP,
    }
)
ROUNDS_MAX = 8  # of re-sending one part, whatever the deadline and the budget say
ROUND_PAUSE_S = 0.05  # before asking the same readers again when every one of them has failed
RETRIES_SAVED_MAX = 200.0
FAIR_S = 1.0  # a reader that does not answer within it may hang; an impatient client says nothing about it


class Answer(Protocol):
    @property
    def covered(self) -> int: ...


A = TypeVar("A", bound=Answer)
B = TypeVar("B")


class PartAnswer(NamedTuple, Generic[A]):
    node: NodeId
    answer: A


@dataclass(slots=True)
class Placed:
    """The files of a plan and where they belong, node ids by placement key. Kept with the plan, it remembers where its
    files may go."""

    files: Sequence[File]
    nodes: Mapping[str, Sequence[NodeId]]
    rows: int = 0
    choices: Choices | None = None
    state: object = None  # of the readers, that `choices` are made for

    def __post_init__(self) -> None:
        self.rows = sum(file.rows for file in self.files)


class ReplanError(Exception):
    """A reader no longer has what the plan names: plan again from fresher metadata."""


class Scatter:
    """Sends parts to readers."""

    def __init__(
        self,
        readers: Readers,
        peers: Peers,
        telling: Telling,
        clock: Clock,
        retry_share: float,
        hedge_share: float,
    ) -> None:
        self._readers = readers
        self._peers = peers
        self._telling = telling
        self._clock = clock
        self._budget = Budget(retry_share, RETRIES_SAVED_MAX)  # so that a sick cluster is not made sicker
        self._hedging = Hedging(clock, hedge_share)

    async def ask_all(
        self,
        placed: Placed,
        ask: Callable[[ReaderService, tuple[int, ...], float], Awaitable[A]],
        deadline_s: float,
    ) -> list[PartAnswer[A]]:
        """Every file answered by exactly one part (I13), and as many rows covered as planned (I14). `deadline_s` is a
        monotonic time; `ask` gets a reader, file ids and the seconds left. Raises the first error of a part."""
        parts = self._choices(placed).parts(self._readers.load)
        answered = await all_of([self._part(part, placed, ask, deadline_s) for part in parts])
        answers = [answer for some in answered for answer in some]
        covered = sum([part.answer.covered for part in answers])
        if placed.rows != covered:
            raise MishardsError(
                Kind.INTERNAL, f"{covered} rows answered, {placed.rows} planned; no partial answer is given"
            )
        return answers

    async def ask_one(
        self, nodes: Sequence[NodeId], ask: Callable[[ReaderService, float], Awaitable[B]], deadline_s: float
    ) -> B:
        """The answer of the first of `nodes` that gives one, then of any reader."""
        failed: list[NodeId] = []
        last = "no reader is known"
        while True:
            usable = self._readers.usable(failed)
            candidates = [node for node in nodes if node in usable] or usable
            if not candidates:
                raise MishardsError(Kind.UNAVAILABLE, f"none of {len(failed)} readers answered, last: {last}")
            try:
                return await self._ask(candidates[0], ask, deadline_s)
            except ReplanError as error:  # this reader lacks the file; storage, and so another reader, has it
                failed.append(candidates[0])
                last = str(error)
            except MishardsError as error:
                if error.kind not in ELSEWHERE or not self._budget.take():
                    raise
                failed.append(candidates[0])
                last = error.message

    async def _part(
        self,
        part: Part,
        placed: Placed,
        ask: Callable[[ReaderService, tuple[int, ...], float], Awaitable[A]],
        deadline_s: float,
        excluded: tuple[NodeId, ...] = (),
        rounds: int = 0,
    ) -> list[PartAnswer[A]]:
        node = part.node
        try:
            return [await self._ask_hedged(part, lambda reader, left_s: ask(reader, part.ids, left_s), deadline_s)]
        except MishardsError as error:
            if error.kind is Kind.NOT_CAUGHT_UP and error.detail:
                await self._tell(node, part.files[0].collection_id, error, deadline_s)
            if error.kind not in ELSEWHERE or rounds >= ROUNDS_MAX or not self._budget.take():
                raise
            if self._clock.monotonic_s() >= deadline_s:
                raise
        excluded = (*excluded, node)
        if not self._readers.usable(excluded):  # everyone failed once: give them a moment and start over
            await asyncio.sleep(ROUND_PAUSE_S)
            excluded = ()
        choices = Choices(part.files, placed.nodes, self._readers.usable(excluded), self._readers.is_ready)
        parts = choices.parts(self._readers.load)
        answered = await all_of([self._part(other, placed, ask, deadline_s, excluded, rounds + 1) for other in parts])
        return [answer for some in answered for answer in some]

    async def _tell(self, node: NodeId, collection_id: CollectionId, error: MishardsError, deadline_s: float) -> None:
        """A reader that is behind, and cannot ask the metadata service, hears what is known here."""
        member = self._readers.member(node)
        if member is not None:
            left_s = deadline_s - self._clock.monotonic_s()
            await self._telling.tell(member, collection_id, Version(int(error.detail)), left_s)

    def _choices(self, placed: Placed) -> Choices:
        """Found anew when a reader has come, gone, failed, recovered, or has other files ready than before."""
        readers = self._readers
        usable = readers.usable()
        state = (readers.epoch, usable)
        if placed.choices is None or placed.state != state:
            placed.choices = Choices(placed.files, placed.nodes, usable, readers.is_ready)
            placed.state = state
        return placed.choices

    async def _ask_hedged(
        self, part: Part, ask: Callable[[ReaderService, float], Awaitable[A]], deadline_s: float
    ) -> PartAnswer[A]:
        """The answer of the part's node, or of another reader that has all the files ready when that is late."""
        if part.spare is None:
            return PartAnswer(part.node, await self._ask(part.node, ask, deadline_s))

        async def answer(of: NodeId) -> PartAnswer[A]:
            return PartAnswer(of, await self._ask(of, ask, deadline_s))

        node, spare, part_class = part.node, part.spare, part.files[0].collection_id
        return await self._hedging.first_answer(part_class, lambda: answer(node), lambda: answer(spare))

    async def _ask(self, node: NodeId, ask: Callable[[ReaderService, float], Awaitable[B]], deadline_s: float) -> B:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise MishardsError(Kind.DEADLINE, "the request's time is up")
        member = self._readers.member(node)
        if member is None:
            raise MishardsError(Kind.PEER_LOST, f"reader {node} has left")
        self._budget.sent()
        self._readers.sent(node)
        try:
            return await ask(self._peers.reader(member), left_s)
        except MishardsError as error:
            if error.kind in (Kind.GONE, Kind.NOT_LOADED):  # it has looked at the metadata service itself
                raise ReplanError(error.message) from error
            if error.kind is Kind.PEER_LOST or (error.kind is Kind.DEADLINE and left_s >= FAIR_S):
                self._readers.failed(node)
            raise
        finally:
            self._readers.answered(node)
