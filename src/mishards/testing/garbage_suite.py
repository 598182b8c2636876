"""What every metadata service must tell of garbage (P12); part of `metadata_suite`."""

from __future__ import annotations

from msgspec.structs import replace

from mishards.model import CollectionId, FileId, FileKind, NodeId, Part, Version
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, a_file

LEASE = "shard/1/0"


class GarbageSuite:
    """Removed files that somebody uses, and uploads that nothing lists."""

    async def test_removed_files_that_are_needed_are_left_out(self, store: MetadataStore) -> None:
        """Of a collection in use only what was removed up to the given version is told; of others everything."""
        for id in (1, 2):
            await store.create_collection(a_collection(id, f"books{id}"))
            files = [replace(a_file(10 * id + number), collection_id=CollectionId(id)) for number in (1, 2)]
            await store.commit(replace(a_commit(f"a{id}", *files), collection_id=CollectionId(id)))
            for file in files:
                gone = a_commit(f"b{file.id}", removed=(file.id,))
                await store.commit(replace(gone, collection_id=CollectionId(id)))

        removed = await store.removed_files(0, 10, needed={CollectionId(1): Version(2), CollectionId(9): Version(0)})

        assert {file.id for file in removed} == {11, 21, 22}
        assert len(await store.removed_files(0, 1, needed={CollectionId(1): Version(0)})) == 1

    async def test_leases_of_long_ago_are_forgotten(self, store: MetadataStore) -> None:
        """Their nonces commit nothing any more; those in force stay."""
        await store.create_collection(a_collection())
        await store.acquire(LEASE, NodeId("w1"), "old", 0)
        await store.acquire("task/1/0/merge/1.0", NodeId("b1"), "busy", 60)

        assert await store.forget_leases(3600) == 0
        assert await store.forget_leases(0) == 1

        assert [lease.name for lease in await store.leases("", expired=True)] == ["task/1/0/merge/1.0"]

    async def test_orphans(self, store: MetadataStore, other: MetadataStore) -> None:
        """Uploads that no record names, of a token that is no lease's nonce: not those that a lease could still list,
        run out or not, and not those of live or removed files."""
        await store.create_collection(a_collection())
        await store.acquire(LEASE, NodeId("w1"), "old", 0)
        live, removed, lost, held = "1/0/old/a", "1/0/old/b", "1/0/old/c", "1/0/new/d"
        files = [
            replace(a_file(id, FileKind.SEGMENT), parts=(Part(kind="scalars", path=path, bytes=1),))
            for id, path in ((1, live), (2, removed))
        ]
        await store.commit(a_commit("u1", *files, leases=((LEASE, "old"),)))
        await store.commit(a_commit("u2", removed=(FileId(2),)))
        paths = [live, removed, lost, held]
        assert await store.orphans(CollectionId(1), paths[:3]) == []

        await other.acquire(LEASE, NodeId("w2"), "new", 60)

        assert await store.orphans(CollectionId(1), paths) == [lost]
        assert await store.orphans(CollectionId(1), []) == []
