"""Writes: group commit, order, leases, fences and lost answers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from writer_house import QUIET, House, delete, insert, refused, request, until

from mishards.errors import Kind, MishardsError
from mishards.model import Commit, FileKind, NodeId, PartitionId, Version
from mishards.ports import CommitRequest
from mishards.telemetry import catalogue as c


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def unavailable() -> MishardsError:
    return MishardsError(Kind.METADATA_UNAVAILABLE, "lost")


async def test_a_write_is_one_commit_that_others_are_told(house: House) -> None:
    """A write over two shards is one commit: listed, mirrored here, and announced with its small payloads."""
    async with house.writer() as writer:
        books = await writer.create(shards=2)
        house.notices.clear()

        reply = await writer.write(books, insert([1, 2], "a"), insert([3], "a", shard=1))

        assert reply.version == writer.manifest(books).version == 1
        assert reply.ts == writer.manifest(books).ts
        rows = writer.live(books, FileKind.ROWS)
        assert [(file.shard, file.rows, file.pk_min, file.pk_max, file.inline) for file in rows] == [
            (0, 2, 1, 2, True),
            (1, 1, 3, 3, True),
        ]
        (notice,) = house.notices
        assert notice.delta is not None
        assert notice.delta.payloads.keys() == {file.id for file in notice.delta.added}
        default = books.partitions[0].id
        assert await writer.found(books) == {(default, 1): "a", (default, 2): "a", (default, 3): "a"}


async def test_large_rows_go_to_storage_first(house: House) -> None:
    """A payload above the limit is an object under the nonce of the shard's lease, a smaller one lies in the commit."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as writer:
        books = await writer.create()

        await writer.write(books, insert(range(500)), replaces=False)

        (rows,) = writer.live(books, FileKind.ROWS)
        (lease,) = await writer.store.leases("shard/")
        assert not rows.inline
        assert rows.parts[0].path.startswith(f"{books.id}/0/{lease.nonce}/")
        assert rows.parts[0].path.endswith(".rows")
        assert len(await writer.found(books)) == 500


async def test_large_rows_are_stored_as_they_came(house: House) -> None:
    """Sorted rows become an object byte for byte; the readers of this process get them without reading it."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as writer:
        books = await writer.create()
        part = insert(range(500))

        await writer.write(books, part)

        (rows,) = writer.live(books, FileKind.ROWS)
        assert await house.storage.get(rows.parts[0].path) == part.rows
        assert writer.mirror.stored([rows.id]) == {rows.id: part.rows}


async def test_large_rows_that_are_partly_overwritten_are_encoded_anew(house: House) -> None:
    """Of large writes in one commit each key's last row is found, and objects that it does not list are gone."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as writer:
        books = await writer.create()
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(request: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = held
        tasks = [asyncio.create_task(writer.write(books, insert([0], "first")))]
        await entered.wait()
        for part in (insert(range(500), "old"), insert(range(400, 900), "new"), insert([*range(899, 400, -1)], "last")):
            queued = writer.node.queued_bytes
            tasks.append(asyncio.create_task(writer.write(books, part)))
            while writer.node.queued_bytes == queued:
                await house.storage.list("")
        free.set()
        await asyncio.gather(*tasks)

        found = {key: name for (_, key), name in (await writer.found(books)).items()}
        assert found == {**dict.fromkeys(range(400), "old"), 400: "new", **dict.fromkeys(range(401, 900), "last")}
        listed = {part.path for file in writer.manifest(books).live() for part in file.parts if part.path}
        assert set(await house.storage.list("")) == listed


async def test_rows_stored_under_a_lost_nonce_are_stored_again(house: House) -> None:
    """A write that was stored ahead and then lost its lease is committed under the new nonce, or leaves nothing."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as writer:
        books = await writer.create()
        entered, free = asyncio.Event(), asyncio.Event()

        async def lost(request: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            writer.store.commit = writer.store.inner.commit
            raise MishardsError(Kind.FENCED, "taken over")

        writer.store.commit = lost
        fenced = asyncio.create_task(writer.write(books, insert([1])))
        await entered.wait()
        later = asyncio.create_task(writer.write(books, insert(range(500))))
        while writer.node.queued_bytes == 0:
            await house.storage.list("")
        (lease,) = await writer.store.leases("shard/")
        await writer.store.release(lease.name, lease.nonce)
        free.set()

        assert (await refused(fenced)).kind is Kind.NOT_OWNER
        assert (await later).version == 1
        (taken,) = await writer.store.leases("shard/")
        assert taken.nonce != lease.nonce
        paths = await house.storage.list("")
        assert len(paths) == 2  # rows and tombstones
        assert all(path.startswith(f"{books.id}/0/{taken.nonce}/") for path in paths)


async def test_generated_keys_need_no_tombstones(house: House) -> None:
    """Rows that replace nothing are committed without tombstones."""
    async with house.writer() as writer:
        books = await writer.create()

        await writer.write(books, insert([1]), replaces=False)

        assert writer.live(books, FileKind.TOMBSTONES) == []


async def test_writes_that_wait_share_the_next_commit(house: House) -> None:
    """Requests that arrive while a commit is in flight are all in the next one."""
    async with house.writer() as writer:
        books = await writer.create()
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(request: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = held
        first = asyncio.create_task(writer.write(books, insert([0], "first")))
        await entered.wait()
        later = [asyncio.create_task(writer.write(books, insert([n], "later"))) for n in range(1, 9)]
        size = len(insert([1], "later").rows)
        await until(lambda: writer.node.queued_bytes == 8 * size)
        free.set()

        assert (await first).version == 1
        assert {reply.version for reply in await asyncio.gather(*later)} == {2}
        assert len(await writer.found(books)) == 9


async def test_order_inside_a_commit_is_kept(house: House) -> None:
    """Insert, overwrite, delete and insert again of one key in one commit leave what doing them one by one leaves."""
    async with house.writer() as writer:
        books = await writer.create()
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(request: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = held
        tasks = [asyncio.create_task(writer.write(books, insert([0], "first")))]
        await entered.wait()
        steps = [insert([1, 2, 3], "old"), insert([1], "new"), delete([2, 3]), insert([3], "again")]
        for step in steps:
            queued = writer.node.queued_bytes
            tasks.append(asyncio.create_task(writer.write(books, step)))
            await until(lambda queued=queued: writer.node.queued_bytes > queued)  # type: ignore[misc]
        free.set()
        await asyncio.gather(*tasks)

        assert writer.manifest(books).version == 2
        assert {key: name for (_, key), name in (await writer.found(books)).items()} == {
            0: "first",
            1: "new",
            3: "again",
        }


async def test_a_repeated_request_is_done_once(house: House) -> None:
    """The same request id again, at the same time or later, gets the first one's answer without a second commit."""
    async with house.writer() as writer:
        books = await writer.create()
        write = request(house.clock, books, insert([1]), replaces=False, request_id="r1")

        together = await asyncio.gather(writer.node.write(write), writer.node.write(write))
        later = await writer.node.write(write)

        assert {reply.version for reply in (*together, later)} == {1}
        assert writer.manifest(books).version == 1


async def test_a_request_repeated_at_the_next_owner_is_done_once(house: House) -> None:
    """After a take-over the new owner knows what the old one did, also of rows that replace nothing."""
    async with house.writer("w2") as second:
        async with house.writer("w1") as first:
            books = await first.create(shards=2)
            write = request(house.clock, books, insert([1]), insert([2], shard=1), replaces=False, request_id="r1")
            done = await first.node.write(write)

        again = await second.node.write(write)
        alone = [await second.node.write(replace(write, shards=(part,))) for part in write.shards]

        assert again == done
        assert alone == [done, done]
        assert len(await second.store.commits(books.id, Version(0))) == 1


async def test_a_repetition_does_not_spoil_the_group(house: House) -> None:
    """What is new in a group with a request that was done already is committed."""
    async with house.writer("w2") as second:
        async with house.writer("w1") as first:
            books = await first.create()
            write = request(house.clock, books, insert([1], "old"), request_id="r1")
            await first.node.write(write)
            await first.write(books, insert([1], "new"))
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(commit: CommitRequest) -> Commit:
            entered.set()
            await free.wait()
            return await second.store.inner.commit(commit)  # type: ignore[no-any-return]

        second.store.commit = held
        tasks = [asyncio.create_task(second.write(books, insert([0])))]
        await entered.wait()
        for each in (write, request(house.clock, books, insert([2]))):
            queued = second.node.queued_bytes
            tasks.append(asyncio.create_task(second.node.write(each)))
            await until(lambda queued=queued: second.node.queued_bytes > queued)  # type: ignore[misc]
        free.set()

        assert [reply.version for reply in await asyncio.gather(*tasks)] == [3, 1, 4]
        found = {key: name for (_, key), name in (await second.found(books)).items()}
        assert found == {0: None, 1: "new", 2: None}


async def test_a_request_that_was_given_up_never_takes_effect(house: House) -> None:
    """Its commit is refused, and what it stored is deleted; a commit that was first is found instead."""
    async with house.writer(settings=replace(QUIET, inline_bytes_max=2_000)) as writer:
        books = await writer.create()
        await writer.store.abort_requests(["r1/0"])

        error = await refused(writer.node.write(request(house.clock, books, insert(range(500)), request_id="r1")))
        done = await writer.node.write(request(house.clock, books, insert([2]), request_id="r2"))
        outcomes = await writer.store.abort_requests(["r2/0"])

        assert error.kind is Kind.UNAVAILABLE
        assert await house.storage.list("") == []
        assert (outcomes["r2/0"].applied, outcomes["r2/0"].version, outcomes["r2/0"].ts) == (True, 1, done.ts)
        assert [key for _, key in await writer.found(books)] == [2]


async def test_a_cancelled_caller_finds_his_write_done(house: House) -> None:
    """A write goes on without its caller; when he asks again he gets its answer."""
    async with house.writer() as writer:
        books = await writer.create()
        write = request(house.clock, books, insert([1]), request_id="r1")
        call = asyncio.create_task(writer.node.write(write))
        await asyncio.sleep(0)

        call.cancel()

        assert (await writer.node.write(write)).version == 1


async def test_a_shard_of_another_writer_is_not_written(house: House) -> None:
    """The owner's name comes with the refusal; after he gave his shards back, the next writer takes them."""
    async with house.writer("w2") as second:
        async with house.writer("w1") as first:
            books = await first.create()
            await first.write(books, insert([1], "w1"))

            error = await refused(second.write(books, insert([2], "w2")))

            assert (error.kind, error.detail) == (Kind.NOT_OWNER, "w1")
        assert (await second.write(books, insert([2], "w2"))).version == 2


async def test_a_fenced_writer_commits_nothing(house: House) -> None:
    """When another one has taken the lease over, the old owner's write fails with NOT_OWNER and leaves no trace."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "mine"))
        (lease,) = await writer.store.leases("shard/")
        await writer.store.release(lease.name, lease.nonce)  # as if it had run out
        await writer.store.acquire(lease.name, NodeId("other"), "nonce-of-other", 60)

        fenced = await refused(writer.write(books, insert([2], "late")))
        again = await refused(writer.write(books, insert([2], "late")))

        assert fenced.kind is Kind.NOT_OWNER
        assert (again.kind, again.detail) == (Kind.NOT_OWNER, "other")
        await writer.mirror.refresh()
        assert list((await writer.found(books)).values()) == ["mine"]


async def test_a_commit_whose_answer_was_lost_is_found(house: House) -> None:
    """The answer to COMMIT is lost: the writer looks for its uuid and acknowledges the commit that happened."""
    async with house.writer() as writer:
        books = await writer.create()

        async def lost_answer(request: CommitRequest) -> Commit:
            await writer.store.inner.commit(request)
            raise unavailable()

        writer.store.commit = lost_answer

        assert (await writer.write(books, insert([1], "a"))).version == 1
        assert len(await writer.store.commits(books.id, Version(0))) == 1
        assert list((await writer.found(books)).values()) == ["a"]
        assert writer.told(c.COMMITS_UNANSWERED, "done") == 1
        assert writer.told(c.COMMITS, "write") == 1


async def test_a_commit_that_never_arrived_is_repeated(house: House) -> None:
    """COMMIT was lost on its way: the writer repeats it under the same uuid."""
    async with house.writer() as writer:
        books = await writer.create()
        uuids = []

        async def lost_request(request: CommitRequest) -> Commit:
            uuids.append(request.uuid)
            if len(uuids) == 1:
                raise unavailable()
            return await writer.store.inner.commit(request)  # type: ignore[no-any-return]

        writer.store.commit = lost_request

        assert (await writer.write(books, insert([1]))).version == 1
        assert uuids[0] == uuids[1]
        assert writer.told(c.COMMITS_UNANSWERED, "repeated") == 1


async def test_a_commit_that_stays_lost_is_fenced(house: House) -> None:
    """An outcome unknown at the deadline is an error; the commit, should it still arrive, fails by its old nonce."""
    async with house.writer() as writer:
        books = await writer.create()
        lost: list[CommitRequest] = []

        async def down(request: CommitRequest) -> Commit:
            lost.append(request)
            raise unavailable()

        writer.store.commit = down
        error = await refused(writer.write(books, insert([1], "lost"), deadline_s=0.01))
        writer.store.commit = writer.store.inner.commit
        await writer.write(books, insert([1], "new"))

        assert error.kind is Kind.METADATA_UNAVAILABLE
        with pytest.raises(MishardsError) as fenced:
            await writer.store.inner.commit(lost[0])
        assert fenced.value.kind is Kind.FENCED
        assert list((await writer.found(books)).values()) == ["new"]
        assert writer.told(c.COMMITS_UNANSWERED, "unknown") == 1


async def test_a_full_shard_refuses_rows_but_never_deletes(house: House) -> None:
    """With too many fresh bytes in a shard inserts get RATE_LIMIT with both numbers; deletes pass."""
    async with house.writer(settings=replace(QUIET, fresh_bytes_max=500)) as writer:
        books = await writer.create()
        await writer.write(books, insert([1]))

        error = await refused(writer.write(books, insert([2])))

        assert error.kind is Kind.RATE_LIMIT
        assert "the limit is 500" in error.message
        assert (await writer.write(books, delete([1]))).version == 2


async def test_a_partition_of_a_delete_limits_its_reach(house: House) -> None:
    """A delete in one partition leaves the same key of another one alone."""
    async with house.writer() as writer:
        books = await writer.create()
        default = books.partitions[0].id

        await writer.write(books, insert([1], "a"))
        await writer.write(books, delete([1], partition_id=PartitionId(default + 1)))

        assert await writer.found(books) == {(default, 1): "a"}


async def test_requests_that_wait_for_a_lease_are_bounded(house: House) -> None:
    """Rows count against the bound of the queue from their arrival on, also while their shard is being taken (P15)."""
    async with house.writer(settings=replace(QUIET, queue_bytes_max=3_000)) as writer:
        books = await writer.create()
        free = asyncio.Event()

        async def held(*arguments: Any) -> Any:
            await free.wait()
            return await writer.store.inner.acquire(*arguments)

        writer.store.acquire = held
        part = insert([1])
        writes = [asyncio.create_task(writer.write(books, part)) for _ in range(3_000 // len(part.rows))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert (await refused(writer.write(books, part))).kind is Kind.RATE_LIMIT
        assert (await refused(writer.write(books, part))).kind is Kind.RATE_LIMIT
        free.set()
        await asyncio.gather(*writes)
        assert writer.node.queued_bytes == 0
