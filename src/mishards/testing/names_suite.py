"""What every metadata service must do with names; a part of `metadata_suite.MetadataSuite`."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, Partition, PartitionId, Version
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import NOW_MS, a_collection, a_commit, a_file, refused


async def best_moves(store: MetadataStore) -> list[tuple[Collection, Collection]]:
    """Two collections, created, and what is to become of them: the alias `best` moves from books to films."""
    default = Partition(PartitionId(0), "_default", 1)
    books = a_collection(1, "books", aliases=("best", "novels"), partitions=(default,))
    films = a_collection(2, "films")
    for collection in (books, films):
        await store.create_collection(collection)
    fewer = replace(books, aliases=("novels",), updated_ts=books.updated_ts + 1)
    return [(books, fewer), (films, replace(films, aliases=("best",), updated_ts=films.updated_ts + 1))]


class NamesSuite:
    """A name means one collection at a time, and everybody the same."""

    async def test_a_name_belongs_to_one_collection(self, store: MetadataStore, other: MetadataStore) -> None:
        """Of collections of one name created at once one succeeds; the others leave nothing behind."""
        creations = [
            client.create_collection(a_collection(id, name="same"))
            for id, client in enumerate([store, other] * 4, start=1)
        ]
        outcomes = await asyncio.gather(*creations, return_exceptions=True)

        errors = [outcome for outcome in outcomes if isinstance(outcome, MishardsError)]
        assert outcomes.count(None) == 1
        assert [error.kind for error in errors] == [Kind.UNEXPECTED] * 7
        assert errors[0].message == "duplicate name: same is already used in database default"
        assert len(await store.heads()) == 1

    async def test_names_and_aliases_share_one_space_in_each_database(self, store: MetadataStore) -> None:
        """An alias cannot be a collection's name nor another's alias, or reversed; case counts; databases differ."""
        await store.create_collection(a_collection(1, "books", aliases=("novels",)))
        await store.create_collection(a_collection(2, "films"))
        films = a_collection(2, "films")

        await refused(Kind.UNEXPECTED, store.create_collection(a_collection(3, "novels")))
        await refused(Kind.UNEXPECTED, store.replace_collection(films, replace(films, name="books")))
        conflict = await refused(
            Kind.ALIAS_NAME_CONFLICT, store.replace_collection(films, replace(films, aliases=("books",)))
        )
        taken = await refused(Kind.ALIAS_EXISTS, store.replace_collection(films, replace(films, aliases=("novels",))))
        await store.create_collection(a_collection(4, "Books"))
        await store.create_collection(a_collection(5, "books", database="other"))

        assert "[database=default][alias=books]" in conflict.message
        assert "novels is alias to another collection: books" in taken.message
        assert (await store.collections([CollectionId(2)]))[0][0] == films

    async def test_replacing_frees_and_claims_names(self, store: MetadataStore) -> None:
        """A rename frees the old name and claims the new one, which may have been its own alias; `ddl` grows."""
        old = a_collection(1, "books", aliases=("novels", "tales"))
        new = replace(old, name="novels", aliases=("tales",), updated_ts=old.updated_ts + 1)
        await store.create_collection(old)
        (before,) = await store.heads()

        await store.replace_collection(old, new)

        (after,) = await store.heads()
        assert after.ddl > before.ddl
        assert await store.collections([old.id]) == [(new, after.ddl)]
        await store.create_collection(a_collection(2, "books"))
        await refused(Kind.UNEXPECTED, store.create_collection(a_collection(3, "novels")))
        await refused(Kind.UNEXPECTED, store.create_collection(a_collection(3, "tales")))

    async def test_an_alias_moves_in_one_step(self, store: MetadataStore, other: MetadataStore) -> None:
        """Of several definitions replaced at once one claims what another frees, in any order; or none is replaced."""
        (books, fewer), (films, more) = await best_moves(store)
        greedy = replace(more, aliases=("best", "novels"))

        await refused(Kind.CONFLICT, store.replace_collections([(books, fewer), (more, more)]))
        await refused(Kind.ALIAS_EXISTS, store.replace_collections([(films, greedy), (books, fewer)]))
        unchanged = [collection for collection, _ in await other.collections([books.id, films.id])]
        await store.replace_collections([(films, more), (books, fewer)])

        assert unchanged == [books, films]
        assert [collection for collection, _ in await other.collections([books.id, films.id])] == [fewer, more]
        await refused(Kind.ALIAS_EXISTS, store.create_collection(a_collection(3, "other", aliases=("best",))))

    async def test_a_new_collection_is_newer_than_what_had_its_name(self, store: MetadataStore) -> None:
        """Its timestamps go on after those of dropped ones, even if the clock of who wrote to them was ahead."""
        await store.create_collection(a_collection(1, "books"))
        old = await store.commit(a_commit("old", a_file(1), now_ms=NOW_MS + 3_600_000))
        await store.drop_collection(CollectionId(1))

        await store.create_collection(a_collection(2, "books"))

        assert (await store.delta(CollectionId(2), Version(0))).ts >= old.ts
        file = replace(a_file(2), collection_id=CollectionId(2))
        new = await store.commit(a_commit("new", file, collection_id=CollectionId(2)))
        assert new.ts > old.ts

    async def test_a_write_under_a_name_that_was_taken_away_is_refused(
        self, store: MetadataStore, other: MetadataStore
    ) -> None:
        """Whoever looked the name up before it moved is told: the client means another collection. Other names, and
        other changes of the definition, are no reason."""
        (books, fewer), (films, more) = await best_moves(store)
        checked_ts = books.updated_ts
        await other.replace_collections([(books, fewer), (films, more)])

        await store.commit(a_commit("u1", a_file(1), names=("books", "novels"), defined_ts=checked_ts))
        late = a_commit("u2", a_file(2), names=("best", "books"), defined_ts=checked_ts)
        error = await refused(Kind.COLLECTION_NOT_FOUND, store.commit(late))

        assert error.detail == "best"
        assert "collection not found[database=default][collection=best]" in error.message
        assert [file.id for file in (await store.delta(CollectionId(1), Version(0))).added] == [1]

    async def test_a_name_that_moves_takes_its_timestamps_along(self, store: MetadataStore) -> None:
        """What is written under it is newer than all that it stood for, whatever the clocks of the writers."""
        move = await best_moves(store)
        old = await store.commit(a_commit("old", a_file(1), now_ms=NOW_MS + 3_600_000))
        await store.replace_collections(move)

        file = replace(a_file(2), collection_id=CollectionId(2))
        new = await store.commit(a_commit("new", file, collection_id=CollectionId(2)))

        assert new.ts > old.ts
