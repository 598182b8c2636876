"""Sealing: fresh rows become segments and no answer changes."""

import asyncio
import random
from pathlib import Path

import pytest
from msgspec.structs import replace
from writer_house import QUIET, House, Writer, delete, insert

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, Commit, FileId, FileKind
from mishards.ports import CommitRequest
from mishards.wire import definitions as d


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def with_partition(writer: Writer, shards: int = 1) -> Collection:
    await writer.create(shards)
    reply = await writer.define(d.CreatePartition(database="default", collection="books", partition="p2"))
    assert reply.collection is not None
    return reply.collection


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_was_written_the_fold_of_it_is_found(house: House, seed: int) -> None:
    """After random writes, deletes and flushes, exactly the rows of a fold over the writes are found (I5, I12)."""
    dice = random.Random(seed)
    async with house.writer(settings=replace(QUIET, inline_bytes_max=700)) as writer:
        books = await with_partition(writer, shards=2)
        expected: dict[tuple[int, int], str | None] = {}
        for step in range(30):
            keys = sorted(dice.sample(range(20), dice.randint(1, 6)))
            mine = {shard: [key for key in keys if key % 2 == shard] for shard in (0, 1)}
            partition = dice.choice(books.partitions).id
            match dice.choice(["insert", "insert", "delete", "delete in partition", "flush"]):
                case "insert":
                    parts = [insert(some, f"s{step}", shard) for shard, some in mine.items() if some]
                    await writer.write(books, *parts, partition=partition)
                    expected = {at: name for at, name in expected.items() if at[1] not in keys}
                    expected |= {(partition, key): f"s{step}" for key in keys}
                case "delete":
                    parts = [delete(some, shard) for shard, some in mine.items() if some]
                    await writer.write(books, *parts, partition=0)
                    expected = {at: name for at, name in expected.items() if at[1] not in keys}
                case "delete in partition":
                    parts = [delete(some, shard, partition_id=partition) for shard, some in mine.items() if some]
                    await writer.write(books, *parts, partition=0)
                    expected = {at: name for at, name in expected.items() if at[0] != partition or at[1] not in keys}
                case _:
                    reply = await writer.flush(books)
                    assert writer.live(books, FileKind.ROWS) == []
                    assert reply.files == tuple(sorted(file.id for file in writer.live(books, FileKind.SEGMENT)))
                    assert reply.version == writer.manifest(books).version

            assert await writer.found(books) == expected


async def test_a_segment_per_partition_with_its_horizon(house: House) -> None:
    """A flush makes one segment for each partition, whose horizon is the version of the snapshot; tombstones stay."""
    async with house.writer() as writer:
        books = await with_partition(writer)
        first, second = (partition.id for partition in books.partitions)
        await writer.write(books, insert([1, 2, 3]), partition=first)
        await writer.write(books, insert([4]), partition=second)
        await writer.write(books, delete([2]))
        stones = len(writer.live(books, FileKind.TOMBSTONES))

        reply = await writer.flush(books)

        segments = writer.live(books, FileKind.SEGMENT)
        assert [(file.partition_id, file.rows, file.horizon) for file in segments] == [(first, 2, 3), (second, 1, 3)]
        assert all(file.segment_id == file.id for file in segments)
        assert reply.version == 4
        assert len(writer.live(books, FileKind.TOMBSTONES)) == stones


async def test_rows_that_are_all_deleted_leave_nothing(house: House) -> None:
    """A flush of rows that are all dead only removes them."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1, 2]))
        await writer.write(books, delete([1, 2]))

        reply = await writer.flush(books)

        assert reply.files == ()
        assert await writer.found(books) == {}
        assert list((house.folder / "scratch" / "w1").iterdir()) == []


async def test_a_flush_of_nothing_commits_nothing(house: House) -> None:
    """Flushing twice, or an empty collection, changes no version; an unknown collection is an error."""
    async with house.writer() as writer:
        books = await writer.create()
        assert (await writer.flush(books)).version == 0
        await writer.write(books, insert([1]))

        first, second = await writer.flush(books), await writer.flush(books)

        assert first == second
        with pytest.raises(MishardsError) as raised:
            await writer.flush(replace(books, id=books.id + 5))
        assert raised.value.kind is Kind.COLLECTION_NOT_FOUND


async def test_a_flush_waits_for_writes_in_flight(house: House) -> None:
    """Rows that were queued when the flush was asked for are in its segments."""
    async with house.writer() as writer:
        books = await writer.create()
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(request: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = held
        write = asyncio.create_task(writer.write(books, insert([1])))
        await entered.wait()
        flush = asyncio.create_task(writer.flush(books))
        await asyncio.sleep(0)
        free.set()

        assert len((await flush).files) == 1
        assert (await write).version == 1


async def test_writes_during_a_flush_stay_fresh(house: House) -> None:
    """What is committed between a flush's snapshot and its layout commit is neither lost nor applied twice."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1, 2, 3], "old"))

        async def write_first(request: CommitRequest) -> Commit:
            writer.store.commit = writer.store.inner.commit
            await writer.write(books, insert([1], "new"))
            await writer.write(books, delete([2]))
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = write_first
        reply = await writer.flush(books)

        assert reply.version == 4
        assert {key: name for (_, key), name in (await writer.found(books)).items()} == {1: "new", 3: "old"}


async def test_a_flush_that_lost_the_race_starts_over(house: House) -> None:
    """When others removed an input meanwhile, nothing is committed and the flush seals what is left."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "a"))
        await writer.write(books, insert([2], "b"))
        (first, _) = writer.live(books, FileKind.ROWS)

        async def remove_first(request: CommitRequest) -> Commit:
            writer.store.commit = writer.store.inner.commit
            theirs = CommitRequest(
                collection_id=books.id, uuid="theirs", kind="layout", now_ms=1, removed=(FileId(first.id),)
            )
            await writer.store.inner.commit(theirs)
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = remove_first
        reply = await writer.flush(books)

        assert len(reply.files) == 1
        assert list((await writer.found(books)).values()) == ["b"]


async def test_any_writer_can_flush(house: House) -> None:
    """A flush asked of a writer that does not own the shard leaves nothing fresh, and the owner goes on writing."""
    async with house.writer("w1") as owner, house.writer("w2") as other:
        books = await owner.create()
        await owner.write(books, insert([1], "a"))

        reply = await other.flush(books)

        assert len(reply.files) == 1
        assert (await owner.write(books, insert([2], "b"))).version == 3
        await owner.mirror.refresh()
        assert sorted((await owner.found(books)).values(), key=str) == ["a", "b"]


async def test_many_fresh_files_are_sealed_in_the_background(house: House) -> None:
    """A shard that has as many fresh files as configured is sealed without being asked."""
    async with house.writer(settings=replace(QUIET, seal_files=3)) as writer:
        books = await writer.create()
        sealed = asyncio.Event()
        writer.mirror.on_change(lambda _: sealed.set() if writer.live(books, FileKind.SEGMENT) else None)

        for key in range(3):
            await writer.write(books, insert([key]))

        await sealed.wait()
        assert writer.live(books, FileKind.ROWS) == []
        assert len(await writer.found(books)) == 3


async def test_fresh_rows_without_an_owner_are_sealed(house: House) -> None:
    """Rows whose writer has stopped are sealed by another one in a while, which does not become the owner by that."""
    async with house.writer("w1") as first:
        books = await first.create(shards=2)
        await first.write(books, insert([2], "a", 0), insert([1], "b", 1))
    async with house.writer("w2", settings=replace(QUIET, seal_age_s=10.0)) as second:
        background = second.node._background
        await background.adopt()
        house.clock.advance(29.9)
        await background.adopt()
        assert len(second.live(books, FileKind.ROWS)) == 2

        house.clock.advance(0.2)
        await background.adopt()

        assert second.live(books, FileKind.ROWS) == []
        assert sorted((await second.found(books)).values(), key=str) == ["a", "b"]
        assert await second.store.leases("") == []


async def test_looking_for_rows_without_an_owner_outlives_an_outage(house: House) -> None:
    """While the metadata service is down that look fails as any call does, so that its caller can try again (P14)."""
    async with house.writer("w1") as first:
        await first.write(await first.create(), insert([1]))
    async with house.writer("w2", settings=replace(QUIET, seal_age_s=10.0)) as second:

        async def down(*arguments: object, **named: object) -> None:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "down")

        background = second.node._background
        await background.adopt()
        house.clock.advance(100.0)
        second.store.leases = down

        with pytest.raises(MishardsError) as refused:
            await background.adopt()

        assert refused.value.kind is Kind.METADATA_UNAVAILABLE


async def test_fresh_rows_of_others_are_left_to_them(house: House) -> None:
    """A writer does not seal the shard of another one who holds its lease, however old the rows are."""
    async with (
        house.writer("w1") as owner,
        house.writer("w2", settings=replace(QUIET, seal_age_s=10.0)) as other,
    ):
        books = await owner.create()
        await owner.write(books, insert([1]))
        await other.mirror.refresh()

        for _ in range(2):
            await other.node._background.adopt()
            house.clock.advance(100.0)

        assert len(other.live(books, FileKind.ROWS)) == 1


async def test_two_writers_may_adopt_at_once(house: House) -> None:
    """When two writers seal the same orphaned rows at once, each row is found once (I19)."""
    settings = replace(QUIET, seal_age_s=10.0)
    async with house.writer("w1") as first:
        books = await first.create(shards=3)
        await first.write(books, *(insert([key], str(key), key % 3) for key in (3, 1, 2)))
    async with house.writer("w2", settings) as second, house.writer("w3", settings) as third:
        for writer in (second, third):
            await writer.node._background.adopt()
        house.clock.advance(100.0)

        await asyncio.gather(second.node._background.adopt(), third.node._background.adopt())

        for writer in (second, third):
            await writer.mirror.refresh()
            assert writer.live(books, FileKind.ROWS) == []
            assert sorted((await writer.found(books)).values(), key=str) == ["1", "2", "3"]


async def test_a_shard_that_cannot_be_sealed_rests(house: House) -> None:
    """A failed seal is tried again after a rest, twice as long each time; the shards beside it are sealed meanwhile."""
    async with house.writer(settings=replace(QUIET, seal_files=1)) as writer:
        bad, good = await writer.create(name="bad"), await writer.create(name="good")
        tries = []

        async def refuse(request: CommitRequest) -> Commit:
            if request.kind == "layout" and request.collection_id == bad.id:
                tries.append(house.clock.now_s)
                raise MishardsError(Kind.INTERNAL, "primary key 1 has two live rows")
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = refuse
        await writer.write(bad, insert([1]))
        await writer.write(good, insert([1]))
        background = writer.node._background
        assert len(background.check()) == 2
        for shard in background.check():
            await background._seal(shard)
        assert writer.live(good, FileKind.ROWS) == []
        assert background.check() == []

        for rest_s in (1.0, 2.0, 4.0):
            house.clock.advance(rest_s - 0.1)
            assert background.check() == []
            house.clock.advance(0.2)
            for shard in background.check():
                await background._seal(shard)

        assert len(tries) == 4


async def test_a_refused_seal_leaves_no_objects(house: House) -> None:
    """Segments whose layout commit was refused are deleted again."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1]))
        (rows,) = writer.live(books, FileKind.ROWS)

        async def remove_first(request: CommitRequest) -> Commit:
            assert await house.storage.list("")
            theirs = replace(request, uuid="theirs", added=(), leases=(), removed=(rows.id,))
            writer.store.commit = writer.store.inner.commit
            await writer.store.inner.commit(theirs)
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = remove_first
        assert (await writer.flush(books)).files == ()

        assert await house.storage.list("") == []


async def test_a_stop_cuts_a_flush_off(house: House) -> None:
    """A flush, a definition and a write that meet a stopping writer are UNAVAILABLE, and the stop does not wait."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1]))
        entered = asyncio.Event()

        async def hang(request: CommitRequest) -> Commit:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        writer.store.commit = hang
        flush = asyncio.create_task(writer.flush(books))
        await entered.wait()

        await asyncio.wait_for(writer.node.stop(), 1)

        drop = d.DropCollection(database="default", collection="books")
        for refused in (flush, writer.flush(books), writer.define(drop), writer.write(books, insert([2]))):
            with pytest.raises(MishardsError) as raised:
                await refused
            assert raised.value.kind is Kind.UNAVAILABLE
