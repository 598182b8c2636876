"""Commits made known: to the metadata service first, then to this process' mirror and to everybody else (P3).

A commit whose answer is lost is looked for by its uuid, and repeated under the same uuid, before anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.deltas import delta_of
from mishards.metadata.mirror import Mirror
from mishards.model import Commit, FileId
from mishards.ports import CommitRequest, MetadataStore
from mishards.wire.messages import Notice

SEARCH_S_MAX = 5.0  # for the outcome of a lost commit; longer and its callers are told that it is unknown (P14)
SEARCH_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # before the n-th look; the last one repeats

REFUSALS = frozenset({Kind.FENCED, Kind.CONFLICT, Kind.COLLECTION_NOT_FOUND})  # it did not happen, and never will

Announce = Callable[[Notice], None]


class Publisher:
    """Commits, and tells this process' mirror and everybody else what changed."""

    def __init__(self, store: MetadataStore, mirror: Mirror, clock: Clock, announce: Announce) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._announce = announce

    async def publish(
        self, request: CommitRequest, ends_s: float, large: Mapping[FileId, bytes | memoryview] | None = None
    ) -> Commit:
        """The commit, found again if its answer is lost, until `ends_s` (monotonic). METADATA_UNAVAILABLE: the outcome
        is unknown; FENCED, CONFLICT and COLLECTION_NOT_FOUND: it did not happen. `large`: contents of files in storage,
        for those in this process who would read them next."""
        search_ends_s = min(ends_s, self._clock.monotonic_s() + SEARCH_S_MAX)
        commit = await self._commit(request, search_ends_s)
        delta = delta_of(request, commit)
        self._mirror.keep_stored(large or {})
        if not self._mirror.apply(delta):
            self._mirror.hint()
        self._announce(Notice(delta))
        return commit

    async def _commit(self, request: CommitRequest, ends_s: float) -> Commit:
        try:
            return await self._store.commit(request)
        except MishardsError as error:
            if error.kind is not Kind.METADATA_UNAVAILABLE:
                raise
            lost = error
        tries = 0
        while True:
            pause_s = SEARCH_PAUSES_S[min(tries, len(SEARCH_PAUSES_S) - 1)]
            if self._clock.monotonic_s() + pause_s >= ends_s:
                raise lost
            await asyncio.sleep(pause_s)
            tries += 1
            try:
                found = await self._store.find_commit(request.collection_id, request.uuid)
                return found or await self._store.commit(request)  # the same uuid: never a second time
            except MishardsError as error:
                if error.kind is not Kind.METADATA_UNAVAILABLE:
                    raise
                lost = error
