"""What this proxy knows of the readers: which segments each has ready, how loaded it is, whether it answers (P11, P17).

One long poll per reader keeps readiness; a reader whose connection failed is left out of routing for a moment, while
placement (membership) stays as it is (P16).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection

import structlog

from mishards.clock import Clock
from mishards.errors import MishardsError
from mishards.model import CollectionId, File, FileId, Member, NodeId
from mishards.wire.membership import Membership
from mishards.wire.messages import ReadyRequest
from mishards.wire.peers import Peers

log = structlog.get_logger(__name__)

POLL_WAIT_S = 2.0  # also how soon a reader that hangs is noticed
POLL_LATE_S = 1.0
SUSPECT_S = 0.5  # a reader that failed is not asked again before, unless there is no other
RETRY_S = 0.2
SEEN_MAX = 100_000  # segments waited for


class Readers:
    """The readers as this proxy sees them. `epoch` grows when readiness or membership changes."""

    def __init__(self, membership: Membership, peers: Peers, clock: Clock, switch_wait_s: float) -> None:
        self._membership = membership
        self._peers = peers
        self._clock = clock
        self._switch_wait_s = switch_wait_s
        self._indexed: tuple[Member, ...] = ()
        self._by_id: dict[NodeId, Member] = {}  # of `_indexed`
        self._ready: dict[NodeId, dict[int, frozenset[int]]] = {}
        self._suspect_until: dict[NodeId, float] = {}
        self._in_flight: dict[NodeId, int] = {}
        self._first_seen: dict[FileId, float] = {}
        self._watchers: dict[tuple[NodeId, str], asyncio.Task[None]] = {}
        self.epoch = 0

    async def start(self) -> None:
        self._membership.on_change(self._follow_members)
        self._follow_members()

    async def stop(self) -> None:
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    # ------------------------------------------------------------------------------------------------- knowledge

    def members(self) -> tuple[Member, ...]:
        """Readers that may be asked, draining ones included."""
        return self._membership.of("reader", draining=True)

    def member(self, node: NodeId) -> Member | None:
        """The reader of that id, as long as it is there."""
        members = self.members()
        if members is not self._indexed:
            self._indexed, self._by_id = members, {member.id: member for member in members}
        return self._by_id.get(node)

    def usable(self, excluded: Collection[NodeId] = ()) -> list[NodeId]:
        """Readers to send parts to: healthy ones, else any that this request has not failed on."""
        if not excluded and not self._suspect_until:
            return [member.id for member in self.members()]
        now_s = self._clock.monotonic_s()
        candidates = [member.id for member in self.members() if member.id not in excluded]
        healthy = [node for node in candidates if self._suspect_until.get(node, 0.0) <= now_s]
        return healthy or candidates

    def is_ready(self, node: NodeId, file: File) -> bool:
        return file.id in self._ready.get(node, {}).get(file.collection_id, frozenset())

    def any_ready(self, file: File) -> bool:
        """Whether a plan may use the segment: a usable reader has it, or waiting for one has taken too long (P11)."""
        now_s = self._clock.monotonic_s()
        for member in self.members():
            if self.is_ready(member.id, file) and self._suspect_until.get(member.id, 0.0) <= now_s:
                return True
        if len(self._first_seen) >= SEEN_MAX:
            self._first_seen.clear()
        return now_s - self._first_seen.setdefault(file.id, now_s) > self._switch_wait_s

    def load(self, node: NodeId) -> float:
        """Requests in flight from here."""
        return self._in_flight.get(node, 0)

    def ready_count(self, collection_id: CollectionId, files: Collection[FileId]) -> int:
        """How many of the files some reader has ready."""
        return sum(
            any(file_id in sets.get(collection_id, frozenset()) for sets in self._ready.values()) for file_id in files
        )

    # -------------------------------------------------------------------------------------------------- experience

    def sent(self, node: NodeId) -> None:
        self._in_flight[node] = self._in_flight.get(node, 0) + 1

    def answered(self, node: NodeId) -> None:
        self._in_flight[node] -= 1
        if not self._in_flight[node]:
            del self._in_flight[node]  # it may never come back

    def failed(self, node: NodeId) -> None:
        """The reader could not be reached; others are preferred for a moment."""
        until_s = self._clock.monotonic_s() + SUSPECT_S
        self._suspect_until[node] = max(until_s, self._suspect_until.get(node, 0.0))
        self.epoch += 1

    # ------------------------------------------------------------------------------------------------------ watching

    def _follow_members(self) -> None:
        members = {(member.id, member.incarnation): member for member in self.members()}
        for gone in self._watchers.keys() - members.keys():
            self._watchers.pop(gone).cancel()
            if gone[0] not in {node for node, _ in members}:
                self._ready.pop(gone[0], None)
                self._suspect_until.pop(gone[0], None)
        for new in members.keys() - self._watchers.keys():
            self._ready.pop(new[0], None)
            self._suspect_until.pop(new[0], None)
            self._watchers[new] = asyncio.create_task(self._watch(members[new]))
        self.epoch += 1

    async def _watch(self, member: Member) -> None:
        reader = self._peers.reader(member)
        since = 0
        while True:
            try:
                async with asyncio.timeout(POLL_WAIT_S + POLL_LATE_S):
                    state = await reader.ready(ReadyRequest(since, POLL_WAIT_S))
            except Exception as error:  # whatever it is, watching goes on
                if not isinstance(error, MishardsError | TimeoutError):
                    log.exception("watching a reader failed", reader=member.id)
                self._ready.pop(member.id, None)
                self._suspect_until[member.id] = math.inf  # until it answers again
                self.epoch += 1
                since = 0
                await asyncio.sleep(RETRY_S)
                continue
            if state.epoch != since:
                self._ready[member.id] = {key: frozenset(files) for key, files in state.files.items()}
                self.epoch += 1
            since = state.epoch
            self._suspect_until.pop(member.id, None)
