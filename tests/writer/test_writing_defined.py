"""Writes and definitions: what does not fit the collection as it is by now is refused, and nothing beside it."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace
from writer_house import NAME, PK, QUIET, VECTOR, House, batch, delete, insert, refused

from mishards.errors import Kind, MishardsError
from mishards.segment.fresh import encode_rows
from mishards.telemetry import catalogue as c
from mishards.wire import definitions as d
from mishards.wire.messages import ShardWrite


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_what_does_not_fit_is_refused_alone(house: House) -> None:
    """Unknown collection, partition, shard or columns: the request is refused with its own kind."""
    async with house.writer() as writer:
        books = await writer.create()
        nowhere = replace(books, id=books.id + 5)
        slim = ShardWrite(0, rows=memoryview(encode_rows(batch([1]).select([PK, VECTOR]))))

        assert (await refused(writer.write(nowhere, insert([1])))).kind is Kind.COLLECTION_NOT_FOUND
        assert (await refused(writer.write(books, insert([1]), partition=9))).kind is Kind.PARTITION_NOT_FOUND
        assert (await refused(writer.write(books, insert([1], shard=1)))).kind is Kind.PARAMETER_INVALID
        turned = ShardWrite(0, rows=memoryview(encode_rows(batch([1]).select([NAME, PK, VECTOR]))))
        for misfit in (slim, turned):
            assert (await refused(writer.write(books, misfit))).kind is Kind.SCHEMA_MISMATCH
        assert (await writer.write(books, delete([1]), partition=9)).version == 1


async def test_a_stale_schema_timestamp_alone_does_no_harm(house: House) -> None:
    """Rows encoded before a definition that changed no field are taken."""
    async with house.writer() as writer:
        books = await writer.create()

        reply = await writer.write(replace(books, updated_ts=1), insert([1]))

        assert reply.version == 1


async def test_writes_to_a_dropped_collection_fail(house: House) -> None:
    """A collection dropped elsewhere takes no more writes, though this writer has not heard of it."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.store.inner.drop_collection(books.id)

        error = await refused(writer.write(books, insert([1])))

        assert error.kind is Kind.COLLECTION_NOT_FOUND
        assert writer.told(c.COMMITS_REFUSED, "COLLECTION_NOT_FOUND") == 1


async def test_a_partition_that_another_writer_made_is_looked_for(house: House) -> None:
    """A writer that has not heard of it yet asks before it refuses rows."""
    async with house.writer() as first, house.writer("w2") as second:
        books = await first.create()
        await second.mirror.refresh()

        reply = await first.define(d.CreatePartition(database="default", collection="books", partition="p2"))

        assert reply.collection is not None
        assert (await second.write(books, insert([1]), partition=reply.collection.partitions[1].id)).version == 1


async def test_writes_under_an_alias_that_another_writer_moved_are_refused(house: House) -> None:
    """Their client means the other collection by now. The writes that wait beside them are committed; a name that is
    news here is looked up."""
    async with house.writer() as first, house.writer("w2") as second:
        books, films = await first.create(), await first.create(name="films")
        await second.define(d.CreateAlias(database="default", collection="books", alias="best"))
        await first.write(books, insert([1], "kept"), name="best")
        await second.define(d.AlterAlias(database="default", collection="films", alias="best"))

        writes = [
            first.write(books, insert([2], "kept"), name="books"),
            first.write(books, insert([3]), name="best"),
            first.write(books, delete([1]), name="best"),
        ]
        answers = await asyncio.gather(*writes, return_exceptions=True)

        kinds = [answer.kind for answer in answers if isinstance(answer, MishardsError)]
        assert kinds == [Kind.COLLECTION_NOT_FOUND] * 2 and not isinstance(answers[0], MishardsError)
        await first.mirror.refresh()
        default = books.partitions[0].id
        assert await first.found(books) == {(default, 1): "kept", (default, 2): "kept"}
        await first.write(films, insert([3]), name="best")
        with pytest.raises(MishardsError, match="collection=best"):  # known here by now
            await first.write(books, insert([4]), name="best")


async def test_rows_of_a_partition_that_another_writer_dropped_are_refused(house: House) -> None:
    """They would be acknowledged, and found by nobody. The writes that wait beside them are committed, and an object
    that was stored for them goes."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as first, house.writer("w2") as second:
        books = await first.create()
        made = await first.define(d.CreatePartition(database="default", collection="books", partition="p2"))
        assert made.collection is not None
        default, p2 = (each.id for each in made.collection.partitions)
        await first.write(books, insert([1]), partition=p2)
        await second.define(d.DropPartition(database="default", collection="books", partition="p2"))

        writes = [
            first.write(books, insert([2], "kept"), partition=default),
            first.write(books, insert(range(500)), partition=p2),
            first.write(books, delete([1])),
            first.write(books, insert([3], "kept"), partition=default),
        ]
        answers = await asyncio.gather(*writes, return_exceptions=True)

        kinds = [answer.kind for answer in answers if isinstance(answer, MishardsError)]
        assert kinds == [Kind.PARTITION_NOT_FOUND] and isinstance(answers[1], MishardsError)
        await first.mirror.refresh()
        assert await first.found(books) == {(default, 2): "kept", (default, 3): "kept"}
        assert await house.storage.list("") == []
