"""What may happen to a task between its choice and its commit: nothing is lost, nothing is done twice (P3, P5, I12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from building import Shop, segments, settle

from mishards.builder.attempt import begin
from mishards.builder.claims import Claims
from mishards.builder.dropping import drop_tombstones
from mishards.builder.policy import DropTombstones
from mishards.errors import Kind, MishardsError
from mishards.metadata.store import SqlStore
from mishards.model import Commit, FileKind, NodeId
from mishards.ports import CommitRequest
from mishards.storage.file import FileStorage


class Interrupting(SqlStore):
    """A store on which something else happens just before the first layout commit."""

    def __init__(self, store: SqlStore, interruption: Callable[[], Awaitable[None]]) -> None:
        self.__dict__.update(store.__dict__)
        self._interruptions = [interruption]

    async def commit(self, request: CommitRequest) -> Commit:
        if self._interruptions:
            await self._interruptions.pop()()
        return await super().commit(request)


async def test_deletes_while_a_merge_commits(shop: Shop) -> None:
    """Deletes that come between the snapshot of a merge and its commit are not taken for applied."""
    await segments(shop, 3, replaces=False)

    builder = shop.builder(store=Interrupting(shop.store, lambda: shop.write({}, deletes=[4])))
    assert await builder.step() == 1
    await settle(shop)

    assert [file.rows for file in await shop.live(FileKind.SEGMENT)] == [30]
    assert len(await shop.live(FileKind.TOMBSTONES)) == 1
    await shop.check()


async def test_deletes_while_a_materialisation_commits(shop: Shop) -> None:
    """Deletes that come between the snapshot of a materialisation and its commit are not taken for applied."""
    await segments(shop, 1, replaces=False)
    await shop.write({}, deletes=[3, *range(200, 209)])

    builder = shop.builder(store=Interrupting(shop.store, lambda: shop.write({}, deletes=[4])))
    assert await builder.step() == 1
    await settle(shop)

    assert [file.dead for file in await shop.live(FileKind.SEGMENT)] == [1]
    assert len(await shop.live(FileKind.TOMBSTONES)) == 1
    await shop.check()


async def test_input_replaced_before_the_commit(shop: Shop) -> None:
    """A merge of which an input was replaced meanwhile does not happen and leaves no upload; the next does (P5)."""
    await segments(shop, 3, replaces=False)
    before = await shop.storage.list("")
    segment = (await shop.live(FileKind.SEGMENT))[1]

    builder = shop.builder(store=Interrupting(shop.store, lambda: shop.list_again(segment)))
    assert await builder.step() == 0
    assert len(await shop.live(FileKind.SEGMENT)) == 3
    assert await shop.storage.list("") == before

    shop.clock.advance(60.0)
    assert await builder.step() == 1
    await shop.check()


async def test_claim_lost_before_the_commit(shop: Shop) -> None:
    """A merge whose claim somebody else holds by now does not happen, and leaves no upload (P2)."""
    await segments(shop, 3, replaces=False)
    before = await shop.storage.list("")

    async def take_over() -> None:
        await shop.store.acquire("task/1/0/merge/1.3", NodeId("b1"), "another nonce", 60.0)

    assert await shop.builder(store=Interrupting(shop.store, take_over)).step() == 0

    assert len(await shop.live(FileKind.SEGMENT)) == 3
    assert await shop.storage.list("") == before


class Failing(SqlStore):
    """A store whose commits fail: before they happen, or after."""

    def __init__(self, store: SqlStore, kind: Kind, happens: bool) -> None:
        self.__dict__.update(store.__dict__)
        self._kind = kind
        self._happens = happens

    async def commit(self, request: CommitRequest) -> Commit:
        if self._happens:
            await super().commit(request)
        raise MishardsError(self._kind, "the answer is lost")


async def test_lost_answer(shop: Shop) -> None:
    """A commit whose answer was lost is looked for and counts."""
    await segments(shop, 3)
    builder = shop.builder(store=Failing(shop.store, Kind.METADATA_UNAVAILABLE, happens=True))

    assert await builder.step() == 2

    assert len(await shop.live(FileKind.SEGMENT)) == 1
    await shop.check()


async def test_crash_before_the_commit(shop: Shop) -> None:
    """Uploads that were not committed change nothing, and another builder does the work."""
    await segments(shop, 3)
    builder = shop.builder(store=Failing(shop.store, Kind.METADATA_UNAVAILABLE, happens=False))

    assert await builder.step() == 0
    assert len(await shop.live(FileKind.SEGMENT)) == 3
    await shop.check()

    await settle(shop)
    assert len(await shop.live(FileKind.SEGMENT)) == 1
    await shop.check()


async def test_refused_commit(shop: Shop) -> None:
    """Uploads of a commit that was refused are deleted, and the task rests."""
    await segments(shop, 3)
    before = await shop.storage.list("")
    builder = shop.builder(store=Failing(shop.store, Kind.CONFLICT, happens=False))

    assert await builder.step() == 0
    assert await shop.storage.list("") == before
    assert await builder.step() == 0  # resting


async def test_damaged_input(shop: Shop) -> None:
    """A segment whose bytes are damaged is not rewritten."""
    await segments(shop, 3)
    damaged = (await shop.live(FileKind.SEGMENT))[1].part("vectors", 102)
    assert damaged is not None
    data = bytearray(await shop.storage.get(damaged.path))
    data[3] ^= 1
    await shop.storage.put(damaged.path, bytes(data))

    await shop.builder().step()

    assert len(await shop.live(FileKind.SEGMENT)) == 3


async def test_rows_that_do_not_add_up(shop: Shop) -> None:
    """A merge whose output would lack rows that are listed is refused."""
    await segments(shop, 3)
    await shop.write({500: 500}, partition=2)
    await shop.seal()
    long, *_, short = await shop.live(FileKind.SEGMENT)
    for kept, shown in zip(short.parts, long.parts, strict=True):
        await shop.storage.put(shown.path, await shop.storage.get(kept.path))

    await shop.builder().step()

    assert len(await shop.live(FileKind.SEGMENT)) == 4


async def test_tombstones_that_are_needed(shop: Shop) -> None:
    """Whoever asks for it: a tombstone that a data file has not applied is not dropped (P6)."""
    await segments(shop, 1, replaces=False)
    await shop.write({}, deletes=[1])
    (needed,) = await shop.live(FileKind.TOMBSTONES)
    task = DropTombstones(collection_id=shop.collection.id, shard=0, inputs=(needed.id,))

    claims = Claims(shop.store, NodeId("b1"), shop.clock, ttl_s=30.0)
    async with claims.hold(task.name) as claim, begin(shop.tools(), task, claim) as attempt:
        with pytest.raises(MishardsError, match="tombstones of version 3 are applied up to version 1 only"):
            await drop_tombstones(attempt, task)

    assert await shop.live(FileKind.TOMBSTONES) == [needed]


class Full(FileStorage):
    """A storage without room for new objects."""

    def __init__(self, storage: FileStorage) -> None:
        self.__dict__.update(storage.__dict__)

    async def put_file(self, path: str, source: Path) -> None:
        raise MishardsError(Kind.STORAGE_UNAVAILABLE, f"'{path}': No space left on device (os error 28)")


async def test_storage_without_room(shop: Shop) -> None:
    """A task whose uploads find no room rests, and is done once there is room: nothing is lost meanwhile."""
    await segments(shop, 3, replaces=False)
    roomy, shop.storage = shop.storage, Full(shop.storage)
    builder = shop.builder()
    await settle(shop)  # what needs no room
    assert await builder.step() == 0
    shop.storage = roomy
    assert len(await shop.live(FileKind.SEGMENT)) == 3
    await shop.check()

    shop.clock.advance(100.0)
    await settle(shop)

    assert len(await shop.live(FileKind.SEGMENT)) == 1
    await shop.check()
