"""The last commits of this writer, to be put back if the metadata service loses them.

A database that fails over to an asynchronous replica forgets its last transactions, acknowledged ones too. Each commit
names the one before it that this writer had acknowledged: where that is missing the commit is refused, and those that
are lost are committed again first, in their order. The leases' nonces prove that nobody else
has written to the shards since; where they do not hold any more the loss is final, and is reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from mishards.clock import Clock
from mishards.model import CollectionId, Version
from mishards.ports import CommitRequest

KEPT_S = 600.0  # a fail-over may take minutes; far less than commit records are kept
KEPT_BYTES_MAX = 64 << 20  # with what lies inline (P15)
ENTRY_BYTES = 4 << 10  # about what a commit takes beside it


def uuid_again(uuid: str) -> str:
    """Of the commit that takes a lost one's place: another one, since another history may lead to it, and who knows the
    lost one must not take the two for the same; always that one, so that a repetition is found."""
    return blake2b(uuid.encode(), digest_size=16).hexdigest()


class _Entry(NamedTuple):
    request: CommitRequest
    version: Version
    acknowledged_s: float  # monotonic

    @property
    def bytes(self) -> int:
        return ENTRY_BYTES + sum(map(len, self.request.payloads.values()))


class Recent:
    """Commits of all collections, as they were acknowledged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._last: dict[CollectionId, _Entry] = {}

    def add(self, request: CommitRequest, version: Version) -> None:
        entry = _Entry(request, version, self._clock.monotonic_s())
        self._entries.append(entry)
        self._bytes += entry.bytes
        self._last[request.collection_id] = entry
        self._expire()

    def last(self, collection_id: CollectionId) -> str:
        """The uuid of the collection's newest; "" if there is none."""
        self._expire()
        entry = self._last.get(collection_id)
        return "" if entry is None else entry.request.uuid

    def of(self, collection_id: CollectionId) -> list[tuple[Version, CommitRequest]]:
        """In the order of their versions."""
        self._expire()
        entries = [entry for entry in self._entries if entry.request.collection_id == collection_id]
        return sorted(((entry.version, entry.request) for entry in entries), key=itemgetter(0))

    def put_back(self, uuid: str, again: CommitRequest, version: Version) -> None:
        """The lost commit of that uuid is there again, as this one."""
        for position, entry in enumerate(self._entries):
            if entry.request.uuid == uuid:
                self._entries[position] = back = entry._replace(request=again, version=version)
                if self._last.get(again.collection_id) is entry:
                    self._last[again.collection_id] = back

    def forget(self, collection_id: CollectionId, requests: Sequence[CommitRequest]) -> None:
        """These of the collection cannot be put back."""
        uuids = {request.uuid for request in requests}
        self._entries = deque(entry for entry in self._entries if entry.request.uuid not in uuids)
        self._bytes = sum(entry.bytes for entry in self._entries)
        self._last.pop(collection_id, None)
        for entry in self._entries:
            if entry.request.collection_id == collection_id:
                self._last[collection_id] = entry

    def _expire(self) -> None:
        oldest_s = self._clock.monotonic_s() - KEPT_S
        while self._entries and (self._bytes > KEPT_BYTES_MAX or self._entries[0].acknowledged_s < oldest_s):
            entry = self._entries.popleft()
            self._bytes -= entry.bytes
            if self._last.get(entry.request.collection_id) is entry:
                del self._last[entry.request.collection_id]
