"""Commits made known: to the metadata service first, then to this process' mirror and to everybody else (P3).

A commit whose answer is lost is looked for by its uuid, and repeated under the same uuid, before anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.deltas import delta_of
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId, Commit, FileId
from mishards.ports import FORKED, UNDONE, CommitRequest, MetadataStore, RequestOutcome
from mishards.wire.messages import Notice
from mishards.writer.recent import Recent

SEARCH_S_MAX = 5.0  # for the outcome of a lost commit; longer and its callers are told that it is unknown (P14)
SEARCH_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # before the n-th look; the last one repeats

REFUSALS = frozenset({Kind.FENCED, Kind.CONFLICT, Kind.COLLECTION_NOT_FOUND})  # it did not happen, and never will

Announce = Callable[[Notice], None]

_log = structlog.get_logger(__name__)


class Publisher:
    """Commits, and tells this process' mirror and everybody else what changed."""

    def __init__(self, store: MetadataStore, mirror: Mirror, clock: Clock, announce: Announce) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._announce = announce
        self._recent = Recent(clock)
        self._restoring = asyncio.Lock()

    async def publish(
        self, request: CommitRequest, ends_s: float, large: Mapping[FileId, bytes | memoryview] | None = None
    ) -> Commit:
        """The commit, found again if its answer is lost, until `ends_s` (monotonic). METADATA_UNAVAILABLE: the outcome
        is unknown; FENCED, CONFLICT and COLLECTION_NOT_FOUND: it did not happen. `large`: contents of files in storage,
        for those in this process who would read them next."""
        search_ends_s = min(ends_s, self._clock.monotonic_s() + SEARCH_S_MAX)
        try:
            commit = await self._commit(self._chained(request), search_ends_s)
        except MishardsError as error:
            if error.kind is not Kind.CONFLICT or error.detail != FORKED:
                raise
            await self.restore(request.collection_id)
            commit = await self._commit(self._chained(request), search_ends_s)
        self._recent.add(request, commit.version)
        self._tell(request, commit, large)
        return commit

    async def restore(self, collection_id: CollectionId) -> None:
        """Put back what the metadata service has lost of this writer's recent commits (`recent.py`), in their order.
        The first that it refuses, and those after it, stay lost."""
        async with self._restoring:
            requests = self._recent.of(collection_id)
            for position, request in enumerate(requests):
                if await self._store.find_commit(collection_id, request.uuid) is not None:
                    continue
                try:
                    commit = await self._store.commit(request)
                except MishardsError as error:
                    if error.kind is Kind.METADATA_UNAVAILABLE:
                        raise
                    _report_lost(requests[position:], error)
                    self._recent.forget(collection_id)
                    return
                _log.error("lost commit put back", collection=collection_id, uuid=request.uuid)
                self._tell(request, commit, None)

    def _chained(self, request: CommitRequest) -> CommitRequest:
        return replace(request, follows=self._recent.last(request.collection_id))

    def _tell(self, request: CommitRequest, commit: Commit, large: Mapping[FileId, bytes | memoryview] | None) -> None:
        delta = delta_of(request, commit)
        self._mirror.keep_stored(large or {})
        if not self._mirror.apply(delta):
            self._mirror.hint()
        self._announce(Notice(delta))

    async def outcomes(self, requests: Sequence[str]) -> dict[str, RequestOutcome]:
        """Those of the clients' requests that are done or given up."""
        return await self._store.find_requests(requests)

    async def _commit(self, request: CommitRequest, ends_s: float) -> Commit:
        try:
            return await self._store.commit(request)
        except MishardsError as error:
            if error.kind is not Kind.METADATA_UNAVAILABLE or error.detail == UNDONE:
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


def _report_lost(requests: Sequence[CommitRequest], error: MishardsError) -> None:
    """The files are kept for a while (P12), and hold what was lost but for what lay in the metadata service."""
    for request in requests:
        files = [part.path for file in request.added for part in file.parts if part.path]
        _log.critical(
            "acknowledged commit is lost",
            collection=request.collection_id,
            uuid=request.uuid,
            files=files,
            reason=error.message,
        )
