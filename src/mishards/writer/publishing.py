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
from mishards.model import CollectionId, Commit, FileId, FileKind
from mishards.ports import FORKED, UNDONE, CommitRequest, MetadataStore, RequestOutcome
from mishards.segment.fresh import decode_tombstones
from mishards.wire.messages import Notice
from mishards.writer.metrics import CommitCounts, Outcome
from mishards.writer.recent import Recent, uuid_again

SEARCH_S_MAX = 5.0  # for the outcome of a lost commit; longer and its callers are told that it is unknown (P14)
SEARCH_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # before the n-th look; the last one repeats

REFUSALS = frozenset(  # it did not happen, and never will
    {Kind.FENCED, Kind.CONFLICT, Kind.COLLECTION_NOT_FOUND, Kind.PARTITION_NOT_FOUND}
)

Announce = Callable[[Notice], None]

_log = structlog.get_logger(__name__)


class Publisher:
    """Commits, and tells this process' mirror and everybody else what changed."""

    def __init__(self, store: MetadataStore, mirror: Mirror, clock: Clock, announce: Announce) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._announce = announce
        self.counts = CommitCounts()
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
            commit = await self._commit_in_chain(request, search_ends_s)
        except MishardsError as error:
            if error.kind in REFUSALS:
                self.counts.refused[error.kind.name] += 1
            raise
        self.counts.done[request.kind] += 1
        if request.kind == "write":  # a layout is made again: under other versions it would not be the same
            self._recent.add(request, commit.version)
        self._tell(request, commit, large)
        return commit

    async def restore(self, collection_id: CollectionId) -> None:
        """Put back what the metadata service has lost of this writer's recent commits (`recent.py`), in their order.
        What it refuses stays lost, and deletes by filter once rows before them have got other versions: they say up to
        which version they looked."""
        async with self._restoring:
            moved = False
            for version, request in self._recent.of(collection_id):
                if await self._store.find_commit(collection_id, request.uuid) is not None:
                    continue
                if moved and _looked_at_versions(request):
                    self._give_up(request, "it deletes by a filter, up to a version that is another one now")
                    continue
                again = replace(request, uuid=uuid_again(request.uuid), defined_ts=0)  # its deletes count in any case
                try:
                    commit = await self._store.commit(again)
                except MishardsError as error:
                    if error.kind is Kind.METADATA_UNAVAILABLE:
                        raise
                    self._give_up(request, error.message)
                    continue
                moved |= commit.version != version
                _log.error("lost commit put back", collection=collection_id, uuid=request.uuid)
                self.counts.put_back += 1
                self._recent.put_back(request.uuid, again, commit.version)
                self._tell(again, commit, None)

    def _give_up(self, request: CommitRequest, reason: str) -> None:
        """The files are kept for a while (P12), and hold what was lost but for what lay in the metadata service."""
        files = [part.path for file in request.added for part in file.parts if part.path]
        where = {"collection": request.collection_id, "uuid": request.uuid}
        _log.critical("acknowledged commit is lost", **where, files=files, reason=reason)
        self.counts.lost += 1
        self._recent.forget(request.collection_id, [request])

    async def _commit_in_chain(self, request: CommitRequest, ends_s: float) -> Commit:
        """After what the metadata service had lost, if it had."""
        try:
            return await self._commit(self._chained(request), ends_s)
        except MishardsError as error:
            if error.kind is not Kind.CONFLICT or error.detail != FORKED:
                raise
        await self.restore(request.collection_id)
        return await self._commit(self._chained(request), ends_s)

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
        outcome: Outcome = "unknown"
        try:
            commit, outcome = await self._resolve(request, ends_s, lost)
        except MishardsError as error:
            outcome = "refused" if error.kind in REFUSALS else "unknown"
            raise
        finally:
            self.counts.unanswered[outcome] += 1
        return commit

    async def _resolve(self, request: CommitRequest, ends_s: float, lost: MishardsError) -> tuple[Commit, Outcome]:
        """What became of a commit whose answer was lost; it is repeated if it had not happened."""
        tries = 0
        while True:
            pause_s = SEARCH_PAUSES_S[min(tries, len(SEARCH_PAUSES_S) - 1)]
            if self._clock.monotonic_s() + pause_s >= ends_s:
                raise lost
            await asyncio.sleep(pause_s)
            tries += 1
            try:
                found = await self._store.find_commit(request.collection_id, request.uuid)
                if found is not None:
                    return found, "done"
                return await self._store.commit(request), "repeated"  # the same uuid: never a second time
            except MishardsError as error:
                if error.kind is not Kind.METADATA_UNAVAILABLE:
                    raise
                lost = error


def _looked_at_versions(request: CommitRequest) -> bool:
    """Whether it deletes what a search has found (`Tombstones.below`); of what lies in storage it may be so."""
    stones = [file for file in request.added if file.kind is FileKind.TOMBSTONES]
    inline = [request.payloads[file.id] for file in stones if file.inline]
    return len(inline) < len(stones) or any(decode_tombstones(payload).below.any() for payload in inline)
