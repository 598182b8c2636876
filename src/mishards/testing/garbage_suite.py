"""What every metadata service must tell of garbage (P12); part of `metadata_suite`."""

from __future__ import annotations

from msgspec.structs import replace

from mishards.clock import hybrid
from mishards.errors import Kind
from mishards.model import CollectionId, FileId, FileKind, NodeId, Part, Version
from mishards.ports import Import, MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, a_file, refused

LEASE = "shard/1/0"


class GarbageSuite:
    """Removed files that somebody uses, uploads that nothing lists, and folders of no collection."""

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

    async def test_folders_of_forgotten_collections(self, store: MetadataStore, other: MetadataStore) -> None:
        """A forgotten collection's folder belongs to nobody for ever: nothing can be imported under its id again."""
        await store.create_collection(a_collection())
        await store.drop_collection(CollectionId(1))
        await store.forget_collection(CollectionId(1))
        await store.forget_collection(CollectionId(1))

        assert await store.take_folders(0, 10) == []  # not due yet
        await refused(Kind.GONE, other.open_folder(CollectionId(1), 60))
        await refused(Kind.GONE, other.import_collection(an_import()))
        assert await store.heads() == []

    async def test_folders_that_become_a_collection_s(self, store: MetadataStore, other: MetadataStore) -> None:
        """A folder that is being filled is taken by nobody, and not once its collection is there."""
        await store.open_folder(CollectionId(1), 60)
        await other.open_folder(CollectionId(1), 60)  # an answer was lost

        assert await other.take_folders(0, 10) == []
        await store.renew_folder(CollectionId(1), 60)
        await store.import_collection(an_import())

        assert await other.take_folders(0, 10) == []
        await refused(Kind.GONE, store.renew_folder(CollectionId(1), 60))
        assert [head.collection_id for head in await other.heads()] == [1]

    async def test_folders_that_nobody_goes_on_to_fill(self, store: MetadataStore, other: MetadataStore) -> None:
        """Once nobody said in time that it is being filled, a folder is taken: from then on nobody can import its
        collection, and a quarantine later it is told, again and again but ever more rarely."""
        await store.open_folder(CollectionId(1), 0)
        await store.open_folder(CollectionId(2), 60)

        assert await other.take_folders(60, 10) == []

        await refused(Kind.GONE, store.renew_folder(CollectionId(1), 60))
        await refused(Kind.GONE, store.import_collection(an_import()))
        await store.renew_folder(CollectionId(2), 0)
        assert await other.take_folders(0, 10) == [2]
        assert await other.take_folders(0, 10) == [2]  # whoever took it may have died
        await other.rest_folders([CollectionId(2)])
        assert await other.take_folders(0, 10) == []


def an_import() -> Import:
    return Import(collection=a_collection(), version=Version(3), ts=hybrid(2), uuid="first", files=(), payloads={})
