"""DDL carried out: read what is defined, decide (`define.py`), write it if nobody else did meanwhile, tell all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mishards.clock import Clock, hybrid
from mishards.errors import Kind, MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, CollectionId, FileId, FileKind, PartitionId
from mishards.ports import CommitRequest, MetadataStore
from mishards.wire.definitions import AnyDefinition, DefineReply, DropPartition
from mishards.wire.messages import Notice
from mishards.writer.define import IDS_WANTED, Change, Fresh, Outcome, outcome
from mishards.writer.publishing import Announce, Publisher

TRIES_MAX = 10  # of one definition against others who define at the same time
LOST_RACES = frozenset({Kind.CONFLICT, Kind.UNEXPECTED, Kind.ALIAS_EXISTS, Kind.ALIAS_NAME_CONFLICT})
PUBLISH_S_MAX = 30.0

Settle = Callable[[CollectionId], Awaitable[None]]


class Definitions:
    """Applies one definition at a time; other writers' are met by retrying."""

    def __init__(
        self,
        store: MetadataStore,
        mirror: Mirror,
        ids: IdBlocks,
        publisher: Publisher,
        clock: Clock,
        announce: Announce,
        settle: Settle,
        default_replicas: int,
    ) -> None:
        """`settle` waits for the writes to a collection that this writer has taken in."""
        self._store = store
        self._mirror = mirror
        self._ids = ids
        self._publisher = publisher
        self._clock = clock
        self._announce = announce
        self._settle = settle
        self._default_replicas = default_replicas
        self._one_at_a_time = asyncio.Lock()

    async def define(self, definition: AnyDefinition, request_id: str = "") -> DefineReply:
        """Afterwards the definition holds and this process knows it. A request whose id is known has taken effect: the
        answer is the collection as it is now."""
        async with self._one_at_a_time:
            result = await self._apply(definition, request_id)
            if isinstance(definition, DropPartition) and result.collection is not None:
                await self._remove_orphans(result.collection.id)
        return DefineReply(result.collection, _dropped_partitions(result))

    async def _apply(self, definition: AnyDefinition, request_id: str) -> Outcome:
        tries = 0
        while True:
            await self._mirror.refresh()
            if (done := await self._done(request_id)) is not None:
                return done  # asked after the refresh: whatever that shows of this request's work is recorded too
            fresh = Fresh(hybrid(self._clock.unix_ms()), await self._ids.take(IDS_WANTED), self._default_replicas)
            result = outcome(definition, self._find, fresh)  # what it raises is final
            try:
                await self._carry_out(result.changes, request_id)
            except MishardsError as error:
                tries += 1
                if error.kind not in LOST_RACES or tries == TRIES_MAX:
                    raise
                continue
            if result.changes:
                await self._mirror.refresh()
                self._announce(Notice())
            return result

    async def _done(self, request_id: str) -> Outcome | None:
        """What a request that has taken effect already has left."""
        found = await self._store.find_requests([request_id]) if request_id else {}
        if request_id not in found:
            return None
        await self._mirror.refresh()
        manifest = self._mirror.get(found[request_id].collection_id)
        return Outcome((), None if manifest is None else manifest.collection)

    async def _carry_out(self, changes: Sequence[Change], request_id: str) -> None:
        """All of them or none."""
        match changes:
            case [Change(None, Collection() as new)]:
                await self._store.create_collection(new, request_id)
            case [Change(Collection() as old, None)]:
                await self._store.drop_collection(old.id, request_id)
            case [_, *_]:
                await self._store.replace_collections([(old, new) for old, new in changes if old and new], request_id)

    def _find(self, database: str, name: str) -> Collection | None:
        manifest = self._mirror.find(database, name)
        return None if manifest is None else manifest.collection

    # ------------------------------------------------------------------------------------------- dropped partitions

    async def _remove_orphans(self, collection_id: CollectionId) -> None:
        """Remove every file whose partition is dropped, also those that a crash after an earlier drop left."""
        await self._settle(collection_id)
        tries = 0
        while orphans := await self._orphans(collection_id):
            request = CommitRequest(
                collection_id=collection_id,
                uuid=self._clock.token(),
                kind="layout",
                now_ms=self._clock.unix_ms(),
                removed=tuple(sorted(orphans)),
            )
            try:
                await self._publisher.publish(request, self._clock.monotonic_s() + PUBLISH_S_MAX)
            except MishardsError as error:
                tries += 1
                if error.kind is not Kind.CONFLICT or tries == TRIES_MAX:
                    raise

    async def _orphans(self, collection_id: CollectionId) -> set[FileId]:
        """The mirror reads definitions before files, so one look may miss a new partition; one that is still unknown at
        the second look, which begins after the first one's files were read, is dropped."""
        await self._mirror.refresh()
        once = self._files_without_partition(collection_id)
        if not once:
            return set()
        await self._mirror.refresh()
        return once & self._files_without_partition(collection_id)

    def _files_without_partition(self, collection_id: CollectionId) -> set[FileId]:
        manifest = self._mirror.get(collection_id)
        if manifest is None:
            return set()
        known = {partition.id for partition in manifest.collection.partitions}
        return {
            file.id
            for file in manifest.live()
            if file.kind is not FileKind.TOMBSTONES and file.partition_id not in known
        }


def _dropped_partitions(result: Outcome) -> tuple[PartitionId, ...]:
    """The partitions that the changes took away, those of a dropped collection included."""
    before = {partition.id for old, _ in result.changes if old is not None for partition in old.partitions}
    after = {partition.id for _, new in result.changes if new is not None for partition in new.partitions}
    return tuple(sorted(before - after))
