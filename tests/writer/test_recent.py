"""A metadata service that loses its last transactions: noticed, put back, or reported (I2, I15)."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from writer_house import House, delete, insert

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, Commit, NodeId, Version
from mishards.ports import UNDONE, CommitRequest
from mishards.telemetry import catalogue as c
from mishards.writer.recent import KEPT_BYTES_MAX, KEPT_S, Recent


class Backup:
    """The metadata service as it is now; `restore` forgets all that came later, as a fail-over does."""

    def __init__(self, house: House) -> None:
        self._file = house.folder / "metadata.db"
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        self._between(lambda live: live.backup(self._copy))

    def restore(self) -> None:
        self._between(lambda live: self._copy.backup(live))
        self._copy.close()

    def _between(self, act) -> None:  # type: ignore[no-untyped-def]
        live = sqlite3.connect(self._file)
        act(live)
        live.close()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_lost_commits_are_put_back_before_the_next(house: House) -> None:
    """In their order, so that the newest row of a key stays the newest; each once."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "kept"))
        backup = await asyncio.to_thread(Backup, house)
        await writer.write(books, insert([2], "old"))
        await writer.write(books, insert([2, 3], "new"))
        await asyncio.to_thread(backup.restore)

        assert (await writer.write(books, insert([4], "next"))).version == 4

        await writer.mirror.refresh()
        found = {key: name for (_, key), name in (await writer.found(books)).items()}
        assert found == {1: "kept", 2: "new", 3: "new", 4: "next"}
        chain = await writer.store.commits(books.id, Version(0))
        assert [commit.version for commit in chain] == [1, 2, 3, 4]
        assert writer.told(c.COMMITS_PUT_BACK) == 2


@pytest.mark.parametrize("sealed", [False, True])
async def test_deletes_by_filter_are_put_back_among_the_versions_they_saw_only(house: House, sealed: bool) -> None:
    """They say up to which version they looked: where the rows have got other numbers, as a seal that was lost is not
    put back, they would delete too few or too many, and are reported instead."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "kept"))
        backup = await asyncio.to_thread(Backup, house)
        if sealed:
            await writer.flush(books)
        seen = (await writer.write(books, insert([2], "found"))).version
        await writer.write(books, delete([2], below=seen + 1))
        await writer.write(books, insert([3], "later"))
        await asyncio.to_thread(backup.restore)

        with capture_logs() as logs:
            await writer.write(books, insert([4], "next"))

        await writer.mirror.refresh()
        assert {key for _, key in await writer.found(books)} == ({1, 2, 3, 4} if sealed else {1, 3, 4})
        lost = [entry["reason"] for entry in logs if entry["log_level"] == "critical"]
        assert len(lost) == writer.told(c.COMMITS_LOST) == sealed
        assert all("deletes by a filter" in reason for reason in lost)


@pytest.mark.parametrize("answered", [True, False])
async def test_lost_commits_are_put_back_without_a_write(house: House, answered: bool) -> None:
    """When this process notices, and if the metadata service does not answer then, once it does: the next write, which
    would put them back too, may never come."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "kept"))
        backup = await asyncio.to_thread(Backup, house)
        await writer.write(books, insert([2], "lost"))
        await asyncio.to_thread(backup.restore)

        async def fail_once(collection_id: CollectionId, uuid: str) -> None:
            del writer.store.find_commit
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "no answer")

        def fork(collection_id: CollectionId) -> None:
            if not answered:
                writer.store.find_commit = fail_once

        writer.mirror.on_fork(fork)
        await writer.mirror.refresh()
        assert len(await writer.found(books)) == 1
        while writer.manifest(books).version == 1:
            await house.storage.list("")

        assert list((await writer.found(books)).values()) == ["kept", "lost"]


async def test_what_another_writer_owns_by_now_stays_lost_and_is_reported(house: House) -> None:
    """It might overwrite what that one has written; nothing is acknowledged in its place."""
    async with house.writer() as writer:
        books = await writer.create()
        await writer.write(books, insert([1], "kept"))
        backup = await asyncio.to_thread(Backup, house)
        await writer.write(books, insert([2], "lost"))
        await asyncio.to_thread(backup.restore)
        (lease,) = await writer.store.leases("shard/")
        await writer.store.release(lease.name, lease.nonce)
        await writer.store.acquire(lease.name, NodeId("w2"), "nonce of w2", 60)

        with pytest.raises(MishardsError) as refused:
            await writer.write(books, insert([3], "late"))
        with capture_logs() as logs:
            await writer.mirror.refresh()
            while not any(entry["log_level"] == "critical" for entry in logs):
                await house.storage.list("")

        assert refused.value.kind is Kind.NOT_OWNER
        assert [entry["event"] for entry in logs if entry["log_level"] == "critical"] == ["acknowledged commit is lost"]
        assert list((await writer.found(books)).values()) == ["kept"]
        assert writer.told(c.COMMITS_LOST) == 1


async def test_a_refusal_whose_reason_is_lost_as_well_may_be_tried_again(house: House) -> None:
    """A commit is refused because its request was carried out already, and the service falls back before it says how:
    then nothing was done, and the next try does it."""
    async with house.writer() as writer:
        books = await writer.create()

        async def refuse(request: CommitRequest) -> Commit:
            raise MishardsError(Kind.CONFLICT, "the request has an outcome")

        writer.store.commit = refuse
        with pytest.raises(MishardsError) as failed:
            await writer.write(books, insert([1], "a"), request_id="r")
        del writer.store.commit
        await writer.write(books, insert([1], "a"), request_id="r")

        assert (failed.value.kind, failed.value.detail) == (Kind.METADATA_UNAVAILABLE, UNDONE)
        assert list((await writer.found(books)).values()) == ["a"]


async def test_who_saw_lost_commits_reads_anew(house: House) -> None:
    """Also when others have taken their place: as many, or more."""
    for more in (0, 1):
        async with house.writer("w1") as first, house.writer("onlooker") as onlooker:
            books = await first.create(name=f"books{more}")
            backup = await asyncio.to_thread(Backup, house)
            await first.write(books, insert([1], "lost"))
            await onlooker.mirror.refresh()
            await asyncio.to_thread(backup.restore)
            forks: list[CollectionId] = []
            onlooker.mirror.on_fork(forks.append)
            async with house.writer("w2") as second:
                for key in range(2, 3 + more):
                    await second.write(books, insert([key], "other"))

                await onlooker.mirror.refresh()

                assert list((await onlooker.found(books)).values()) == ["other"] * (1 + more)
                assert forks == [books.id]


def test_what_is_kept_is_bounded() -> None:
    """In age and in bytes."""
    clock = FakeClock()
    recent = Recent(clock)

    def add(number: int, size: int = 0) -> None:
        payloads = {number: bytes(size)} if size else {}
        recent.add(
            CommitRequest(collection_id=CollectionId(1), uuid=f"u{number}", kind="write", now_ms=1, payloads=payloads),  # type: ignore[arg-type]
            Version(number),
        )

    add(1)
    clock.advance(KEPT_S / 2)
    add(2)
    clock.advance(KEPT_S / 2 + 1)
    assert [request.uuid for _, request in recent.of(CollectionId(1))] == ["u2"]

    add(3, KEPT_BYTES_MAX - 10_000)
    add(4, 10_000)
    assert [request.uuid for _, request in recent.of(CollectionId(1))] == ["u4"]

    clock.advance(KEPT_S + 1)
    assert recent.last(CollectionId(1)) == ""
