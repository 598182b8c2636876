"""The metadata service over SQL: SQLite in one file; MySQL, MariaDB or PostgreSQL for a cluster.

Each method of the port is one function of the sibling modules, run in one transaction of the reading or writing lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata import audit, chain, definitions, folders, garbage, members, migrate, pins
from mishards.metadata.database import make_folder, parse_url
from mishards.metadata.ids import start_counter, take_ids
from mishards.metadata.importing import import_collection
from mishards.metadata.lane import Lane
from mishards.metadata.leases import acquire, hand_over, read_leases, release, renew
from mishards.metadata.requests import abort_requests, find_requests, forget_requests
from mishards.model import Collection, CollectionId, Commit, Delta, File, FileId, FileKind, Member, NodeId, Version
from mishards.ports import CommitRequest, Head, Import, Lease, Pin, RequestOutcome

SLOW_S = 20  # a server that works on very many rows says nothing for a while
DUMP_S = 600  # so long may whoever reads an export hold up the transaction that it is read in


def open_store(url: str, clock: Clock) -> SqlStore:
    """A client of the metadata service at that SQLAlchemy URL, not yet connected. SetupError for a URL of no use."""
    return SqlStore(url, clock)


class SqlStore:
    """`ports.MetadataStore` over SQLAlchemy. The contracts are the port's."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = parse_url(url)
        self._clock = clock
        self._reads = Lane(self._url, writing=False, clock=clock)
        self._writes = Lane(self._url, writing=True, clock=clock)
        # What may take long, as deleting very many rows does, and nobody waits for. SQLite has one writer anyway.
        slow = self._url.get_backend_name() != "sqlite"
        self._slow = Lane(self._url, True, clock, threads=1, silent_s=SLOW_S) if slow else self._writes

    async def open(self) -> None:
        await self._writes.call(partial(make_folder, self._url))
        await self._writes.call(partial(migrate.upgrade, self._url))
        await self._writes.run(start_counter)

    async def close(self) -> None:
        await self._reads.close()
        await self._writes.close()
        await self._slow.close()

    async def take_ids(self, count: int) -> int:
        return await self._writes.run(partial(take_ids, count=count))

    async def create_collection(self, collection: Collection, request: str = "") -> None:
        await self._writes.run(partial(definitions.create_collection, collection=collection, request=request))

    async def replace_collection(self, old: Collection, new: Collection) -> None:
        await self._writes.run(partial(definitions.replace_collections, pairs=[(old, new)]))

    async def replace_collections(self, pairs: Sequence[tuple[Collection, Collection]], request: str = "") -> None:
        await self._writes.run(partial(definitions.replace_collections, pairs=pairs, request=request))

    async def drop_collection(self, collection_id: CollectionId, request: str = "") -> None:
        await self._writes.run(partial(definitions.drop_collection, collection_id=collection_id, request=request))

    async def heads(self) -> list[Head]:
        return await self._reads.run(definitions.heads)

    async def collections(self, ids: Sequence[CollectionId]) -> list[tuple[Collection, int]]:
        return await self._reads.run(partial(definitions.read_collections, ids=ids))

    async def delta(self, collection_id: CollectionId, after: Version) -> Delta:
        return await self._reads.run(partial(chain.delta, collection_id=collection_id, after=after))

    async def payloads(self, files: Sequence[FileId]) -> dict[FileId, bytes]:
        return await self._reads.run(partial(chain.read_payloads, ids=files))

    async def commit(self, request: CommitRequest) -> Commit:
        try:
            return await self._writes.run(partial(chain.commit, request=request))
        except MishardsError as error:
            if error.kind is Kind.METADATA_UNAVAILABLE:
                raise
            # Refused, perhaps only because an attempt whose answer was lost has done it all already.
            earlier = await self.find_commit(request.collection_id, request.uuid)
            if earlier is None:
                raise
            return earlier

    async def find_commit(self, collection_id: CollectionId, uuid: str) -> Commit | None:
        return await self._writes.run(partial(chain.find_commit, collection_id=collection_id, uuid=uuid))

    async def commits(self, collection_id: CollectionId, after: Version) -> list[Commit]:
        return await self._reads.run(partial(chain.read_commits, collection_id=collection_id, after=after))

    async def find_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        return await self._reads.run(partial(find_requests, ids=ids))

    async def abort_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        return await self._writes.run(partial(abort_requests, ids=ids))

    async def forget_requests(self, older_than_s: float, limit: int) -> int:
        return await self._slow.run(partial(forget_requests, older_than_s=older_than_s, limit=limit))

    async def create_pin(self, pin: Pin, ttl_s: float | None = None, base: CollectionId | None = None) -> Pin:
        return await self._writes.run(partial(pins.create_pin, pin=pin, ttl_s=ttl_s, base=base))

    async def renew_pin(self, id: CollectionId, ttl_s: float) -> None:
        await self._writes.run(partial(pins.renew_pin, id=id, ttl_s=ttl_s))

    async def drop_pin(self, id: CollectionId) -> None:
        await self._writes.run(partial(pins.drop_pin, id=id))

    async def pins(self, collection_id: CollectionId | None = None) -> list[Pin]:
        return await self._reads.run(partial(pins.read_pins, collection_id=collection_id))

    async def pinned(self, id: CollectionId) -> tuple[Pin, Delta]:
        return await self._reads.run(partial(pins.pinned, id=id))

    async def import_collection(self, imported: Import) -> None:
        await self._slow.run(partial(import_collection, imported=imported))

    async def acquire(self, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
        return await self._writes.run(partial(acquire, name=name, owner=owner, nonce=nonce, ttl_s=ttl_s))

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        return await self._writes.run(partial(renew, pairs=leases, ttl_s=ttl_s))

    async def release(self, name: str, nonce: str) -> None:
        await self._writes.run(partial(release, name=name, nonce=nonce))

    async def hand_over(self, name: str, nonce: str, to: NodeId, new_nonce: str, ttl_s: float) -> bool:
        work = partial(hand_over, name=name, nonce=nonce, to=to, new_nonce=new_nonce, ttl_s=ttl_s)
        return await self._writes.run(work)

    async def leases(self, prefix: str, expired: bool = False) -> list[Lease]:
        return await self._reads.run(partial(read_leases, prefix=prefix, expired=expired))

    async def beat(self, member: Member) -> None:
        await self._writes.run(partial(members.beat, member=member))

    async def members(self) -> list[Member]:
        return await self._reads.run(members.read_members)

    async def forget_member(self, node: NodeId) -> None:
        await self._writes.run(partial(members.forget_member, node=node))

    async def removed_files(
        self,
        older_than_s: float,
        limit: int,
        kind: FileKind | None = None,
        needed: Mapping[CollectionId, Version] = MappingProxyType({}),
        pinned: bool = False,
    ) -> list[File]:
        which = partial(garbage.removed_files, kind=kind, needed=needed, pinned=pinned)
        return await self._reads.run(partial(which, older_than_s=older_than_s, limit=limit))

    async def dropped_collections(self, older_than_s: float) -> list[CollectionId]:
        return await self._reads.run(partial(definitions.dropped_collections, older_than_s=older_than_s))

    async def forget_files(self, files: Sequence[FileId]) -> None:
        await self._slow.run(partial(garbage.forget_files, ids=files))

    async def forget_collection(self, collection_id: CollectionId) -> None:
        await self._slow.run(partial(definitions.forget_collection, collection_id=collection_id))

    async def forget_commits(self, older_than_s: float, keep: int) -> int:
        return await self._slow.run(partial(garbage.forget_commits, older_than_s=older_than_s, keep=keep))

    async def forget_leases(self, older_than_s: float) -> int:
        return await self._slow.run(partial(garbage.forget_leases, older_than_s=older_than_s))

    async def orphans(self, collection_id: CollectionId, paths: Sequence[str]) -> list[str]:
        return await self._reads.run(partial(garbage.orphans, collection_id=collection_id, paths=paths))

    async def open_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        await self._writes.run(partial(folders.open_folder, collection_id=collection_id, ttl_s=ttl_s))

    async def renew_folder(self, collection_id: CollectionId, ttl_s: float) -> None:
        await self._writes.run(partial(folders.renew_folder, collection_id=collection_id, ttl_s=ttl_s))

    async def take_folders(self, quarantine_s: float, limit: int) -> list[CollectionId]:
        return await self._writes.run(partial(folders.take_folders, quarantine_s=quarantine_s, limit=limit))

    async def rest_folders(self, ids: Sequence[CollectionId]) -> None:
        await self._writes.run(partial(folders.rest_folders, ids=ids))

    # for `mishards metadata`, beyond the port

    async def revisions(self) -> tuple[str, str]:
        """The schema revision of the database, "" when it is empty, and that of this program."""
        return await self._reads.call(partial(migrate.revisions, self._url))

    async def dangling(self) -> list[str]:
        """Records that refer to what is not there."""
        return await self._slow.run(audit.dangling)

    async def dump(self, write: audit.Write) -> int:
        """Every row as a line of JSON, given to `write` on another thread, which may take its time; how many."""
        lane = Lane(self._url, writing=False, clock=self._clock, threads=1, silent_s=DUMP_S)
        try:
            return await lane.run(partial(audit.dump, write=write))
        finally:
            await lane.close()
