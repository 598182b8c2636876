"""Definitions carried out against a real store, also against others who define at the same time."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from writer_house import SCHEMA, House, Writer, delete, insert

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, FileKind
from mishards.wire import definitions as d
from mishards.wire.messages import Notice


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def partition(name: str) -> d.CreatePartition:
    return d.CreatePartition(database="default", collection="books", partition=name)


async def described(writer: Writer, name: str = "books") -> Collection:
    await writer.mirror.refresh()
    manifest = writer.mirror.find("default", name)
    assert manifest is not None
    return manifest.collection


async def test_a_definition_is_known_here_and_told_to_others(house: House) -> None:
    """After the reply this process knows the definition; others get a notice without a delta."""
    async with house.writer() as writer:
        books = await writer.create()

        assert writer.manifest(books).collection == books
        assert house.notices == [Notice()]

        again = await writer.create()
        assert again == books
        assert house.notices == [Notice()]  # nothing changed


async def test_definitions_of_two_writers_at_once_all_hold(house: House) -> None:
    """Whoever loses a race reads again and decides anew; no definition is lost."""
    async with house.writer("w1") as first, house.writer("w2") as second:
        await asyncio.gather(first.create(), second.create())

        await asyncio.gather(
            *(
                writer.define(partition(f"{name}{n}"))
                for n in range(4)
                for name, writer in (("a", first), ("b", second))
            )
        )

        names = {each.name for each in (await described(first)).partitions}
        assert names == {"_default", *(f"{name}{n}" for n in range(4) for name in "ab")}


async def test_a_race_for_a_name_has_one_winner(house: House) -> None:
    """Of two different collections of one name at once, one is created and one is refused as a duplicate."""
    async with house.writer("w1") as first, house.writer("w2") as second:
        results = await asyncio.gather(first.create(), second.create(shards=2), return_exceptions=True)

        (refused,) = [each for each in results if isinstance(each, MishardsError)]
        assert refused.kind is Kind.UNEXPECTED
        assert "create duplicate collection with different parameters" in refused.message


async def test_a_moved_alias_survives_a_lost_race(house: House) -> None:
    """When the new holder of an alias changes meanwhile, the old one keeps it until the next try moves it."""
    async with house.writer() as writer:
        books, films = await writer.create(), await writer.create(name="films")
        await writer.define(d.CreateAlias(database="default", collection="books", alias="best"))

        async def race(pairs: Sequence[tuple[Collection, Collection]], request: str) -> None:
            writer.store.replace_collections = writer.store.inner.replace_collections
            await writer.store.inner.replace_collection(films, replace(films, updated_ts=films.updated_ts + 1))
            with pytest.raises(MishardsError):
                await writer.store.inner.replace_collections(pairs)
            assert (await described(writer, "best")).id == books.id
            await writer.store.inner.replace_collections(pairs)

        writer.store.replace_collections = race
        await writer.define(d.AlterAlias(database="default", collection="films", alias="best"))

        assert (await described(writer, "best")).id == films.id
        assert (await described(writer)).id == books.id


async def test_a_dropped_partition_takes_its_files_along(house: House) -> None:
    """Its fresh rows and segments are removed in one commit, those of other partitions stay."""
    async with house.writer() as writer:
        books = await writer.create()
        reply = await writer.define(partition("p2"))
        assert reply.collection is not None
        default, p2 = (each.id for each in reply.collection.partitions)
        await writer.write(books, insert([1, 2], "default"), partition=default)
        await writer.write(books, insert([3], "segment"), partition=p2)
        await writer.flush(books)
        await writer.write(books, insert([4], "fresh"), partition=p2)
        version = writer.manifest(books).version

        dropped = await writer.define(d.DropPartition(database="default", collection="books", partition="p2"))

        assert dropped.dropped_partitions == (p2,)
        assert writer.manifest(books).version == version + 1
        assert writer.live(books, FileKind.ROWS) == []
        assert await writer.found(books) == {(default, 1): "default", (default, 2): "default"}
        with pytest.raises(MishardsError) as refused:
            await writer.write(books, insert([5]), partition=p2)
        assert refused.value.kind is Kind.PARTITION_NOT_FOUND


async def test_dropping_again_finishes_what_a_crash_left(house: House) -> None:
    """A crash between the definition and the removal of the files is mended by the next drop, though nothing is to
    be dropped any more."""
    async with house.writer() as writer:
        books = await writer.create()
        reply = await writer.define(partition("p2"))
        assert reply.collection is not None
        await writer.write(books, insert([1]), partition=reply.collection.partitions[1].id)
        crashed = replace(reply.collection, partitions=books.partitions, updated_ts=reply.collection.updated_ts + 1)
        await writer.store.replace_collection(reply.collection, crashed)

        await writer.define(d.DropPartition(database="default", collection="books", partition="p2"))

        assert writer.live(books, FileKind.ROWS) == []


async def test_a_dropped_collection_is_gone_and_its_shards_are_free(house: House) -> None:
    """After a drop writes fail; a new collection of the name is another one, and empty."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1]))

        reply = await writer.define(d.DropCollection(database="default", collection="books"))

        assert reply.collection is None
        assert reply.dropped_partitions == (books.partitions[0].id,)
        with pytest.raises(MishardsError) as refused:
            await writer.write(books, delete([1]))
        assert refused.value.kind is Kind.COLLECTION_NOT_FOUND
        new = await writer.create()
        assert new.id != books.id
        assert await writer.found(new) == {}


async def test_a_definition_fails_at_once_without_the_metadata_service(house: House) -> None:
    """While the metadata service is down definitions get a retryable error (P14)."""
    async with house.writer() as writer:

        async def down() -> list[object]:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "down")

        writer.store.heads = down

        with pytest.raises(MishardsError) as refused:
            await writer.create()
        assert refused.value.kind is Kind.METADATA_UNAVAILABLE
        assert refused.value.retryable


@pytest.mark.parametrize("lost", ["rename", "drop", "create"])
async def test_a_repeated_definition_takes_effect_once(house: House, lost: str) -> None:
    """The same request at another writer, after its answer was lost and others went on: nothing is undone."""
    definitions: dict[str, d.AnyDefinition] = {
        "rename": d.RenameCollection(database="default", collection="books", name="novels"),
        "drop": d.DropCollection(database="default", collection="books"),
        "create": d.CreateCollection(database="default", collection="books", schema=SCHEMA, shards=1),
    }
    async with house.writer("w1") as first, house.writer("w2") as second:
        if lost != "create":
            await first.create()
        await first.node.define(d.DefineRequest(definitions[lost], "r1"))
        if lost == "create":
            await first.define(definitions["drop"])
        else:
            await first.create()

        again = await second.node.define(d.DefineRequest(definitions[lost], "r1"))

        names = {manifest.collection.name for manifest in second.mirror.manifests()}
        assert names == {"rename": {"books", "novels"}, "drop": {"books"}, "create": set()}[lost]
        assert (None if again.collection is None else again.collection.name) == ("novels" if lost == "rename" else None)


async def test_a_definition_repeated_at_the_same_time_takes_effect_once(house: House) -> None:
    """Whichever writer is faster, the other one finds it done."""
    async with house.writer("w1") as first, house.writer("w2") as second:
        await first.create()
        rename = d.DefineRequest(d.RenameCollection(database="default", collection="books", name="novels"), "r1")

        replies = await asyncio.gather(first.node.define(rename), second.node.define(rename))

        assert [reply.collection and reply.collection.name for reply in replies] == ["novels", "novels"]
