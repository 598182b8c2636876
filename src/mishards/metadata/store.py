"""The metadata service over SQL: SQLite in one file; MySQL, MariaDB or PostgreSQL for a cluster.

Each method of the port is one function of the sibling modules, run in one transaction of the reading or writing lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata import chain, definitions, garbage, members, migrate
from mishards.metadata.database import Lane, make_folder, parse_url
from mishards.metadata.ids import start_counter, take_ids
from mishards.metadata.leases import acquire, read_leases, release, renew
from mishards.model import Collection, CollectionId, Commit, Delta, File, FileId, FileKind, Member, NodeId, Version
from mishards.ports import CommitRequest, Head, Lease


def open_store(url: str, clock: Clock) -> SqlStore:
    """A client of the metadata service at that SQLAlchemy URL, not yet connected. SetupError for a URL of no use."""
    return SqlStore(url, clock)


class SqlStore:
    """`ports.MetadataStore` over SQLAlchemy. The contracts are the port's."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = parse_url(url)
        self._clock = clock
        self._reads = Lane(self._url, writing=False)
        self._writes = Lane(self._url, writing=True)

    async def open(self) -> None:
        await self._writes.call(partial(make_folder, self._url))
        await self._writes.call(partial(migrate.upgrade, self._writes.engine))
        await self._writes.run(partial(start_counter, unix_ms=self._clock.unix_ms()))

    async def close(self) -> None:
        await self._reads.close()
        await self._writes.close()

    async def take_ids(self, count: int) -> int:
        return await self._writes.run(partial(take_ids, count=count))

    async def create_collection(self, collection: Collection) -> None:
        await self._writes.run(partial(definitions.create_collection, collection=collection))

    async def replace_collection(self, old: Collection, new: Collection) -> None:
        await self._writes.run(partial(definitions.replace_collections, pairs=[(old, new)]))

    async def replace_collections(self, pairs: Sequence[tuple[Collection, Collection]]) -> None:
        await self._writes.run(partial(definitions.replace_collections, pairs=pairs))

    async def drop_collection(self, collection_id: CollectionId) -> None:
        await self._writes.run(partial(definitions.drop_collection, collection_id=collection_id))

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

    async def acquire(self, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
        return await self._writes.run(partial(acquire, name=name, owner=owner, nonce=nonce, ttl_s=ttl_s))

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        return await self._writes.run(partial(renew, pairs=leases, ttl_s=ttl_s))

    async def release(self, name: str, nonce: str) -> None:
        await self._writes.run(partial(release, name=name, nonce=nonce))

    async def leases(self, prefix: str) -> list[Lease]:
        return await self._reads.run(partial(read_leases, prefix=prefix))

    async def beat(self, member: Member) -> None:
        await self._writes.run(partial(members.beat, member=member))

    async def members(self) -> list[Member]:
        return await self._reads.run(members.read_members)

    async def forget_member(self, node: NodeId) -> None:
        await self._writes.run(partial(members.forget_member, node=node))

    async def removed_files(self, older_than_s: float, limit: int, kind: FileKind | None = None) -> list[File]:
        return await self._reads.run(partial(garbage.removed_files, older_than_s=older_than_s, limit=limit, kind=kind))

    async def dropped_collections(self, older_than_s: float) -> list[CollectionId]:
        return await self._reads.run(partial(definitions.dropped_collections, older_than_s=older_than_s))

    async def forget_files(self, files: Sequence[FileId]) -> None:
        await self._writes.run(partial(garbage.forget_files, ids=files))

    async def forget_collection(self, collection_id: CollectionId) -> None:
        await self._writes.run(partial(definitions.forget_collection, collection_id=collection_id))

    async def forget_commits(self, older_than_s: float, keep: int) -> int:
        return await self._writes.run(partial(garbage.forget_commits, older_than_s=older_than_s, keep=keep))
