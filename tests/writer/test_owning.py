"""Which shards a writer takes and hands over."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace
from writer_house import QUIET, House, Writer, insert, until

from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, NodeId, Version
from mishards.ports import CommitRequest, Lease
from mishards.writer.owning import by_shard, next_look_s, wished
from mishards.writer.shard import Shard

ME, OTHER = NodeId("w1"), NodeId("w2")
SHARDS = [Shard(CollectionId(1), number) for number in range(4)]
SETTINGS = replace(QUIET, lease_s=60.0)  # no look happens by itself but the first


class FakeOthers:
    """Says what a test wants to hear: which shards are whose by their number, and who lives."""

    def __init__(self, owners: dict[int, str], alive: Iterable[str] = ("w1", "w2"), settled_s: float = 1e9) -> None:
        self.owners = owners
        self.alive = set(alive)
        self.left = False
        self.suspected: list[str] = []
        self._settled_s = settled_s

    def owner(self, shard: Shard, shards: int) -> NodeId | None:
        owner = NodeId(self.owners[shard.number])
        return owner if owner in self.alive else None

    def suspect(self, node: NodeId) -> None:
        self.suspected.append(node)
        self.alive.discard(node)

    async def answers(self, node: NodeId) -> bool:
        return node in self.alive

    async def reconsider(self) -> None:
        pass

    def settled_s(self) -> float:
        return self._settled_s

    def leave(self) -> None:
        self.left = True

    def on_change(self, callback: Callable[[], None]) -> None:
        pass


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
async def books(house: House) -> AsyncIterator[Collection]:
    async with house.writer("w0") as definer:
        yield await definer.create(shards=2)


async def owners(writer: Writer) -> dict[int, str]:
    leases = await writer.store.leases("shard/")
    return {shard.number: lease.owner for shard, lease in by_shard(leases).items()}


def lease(shard: Shard, owner: NodeId, left_s: float) -> Lease:
    return Lease(shard.lease_name, owner, "nonce", left_s)


# ------------------------------------------------------------------------------------------------------- decisions


def test_what_is_mine_by_name_is_taken() -> None:
    """What was handed over, or was held by this writer's former life, whoever should own it."""
    seen = {shard: lease(shard, ME, 5.0) for shard in SHARDS[:2]}

    assert wished(ME, seen, {SHARDS[0]}, dict.fromkeys(SHARDS, OTHER)).take == [SHARDS[1]]


def test_what_ran_out_is_taken_by_its_next_owner() -> None:
    """A lease in force is left alone, and so is one that should be another's."""
    seen = {SHARDS[0]: lease(SHARDS[0], OTHER, -1.0), SHARDS[1]: lease(SHARDS[1], OTHER, 0.5)}
    seen[SHARDS[2]] = lease(SHARDS[2], OTHER, -1.0)
    owners = {SHARDS[0]: ME, SHARDS[1]: ME, SHARDS[2]: OTHER}

    assert wished(ME, seen, set(), owners).take == [SHARDS[0]]


def test_what_should_be_anothers_is_given() -> None:
    """When nobody is known it is kept."""
    owners = {SHARDS[0]: ME, SHARDS[1]: OTHER, SHARDS[2]: None}

    assert wished(ME, {}, set(SHARDS[:3]), owners).give == {SHARDS[1]: OTHER}


def test_the_next_look_is_when_a_lease_runs_out() -> None:
    """But not at once, and not later than usual."""
    seen = {SHARDS[0]: lease(SHARDS[0], ME, 0.2), SHARDS[1]: lease(SHARDS[1], OTHER, 0.4)}

    assert next_look_s(ME, seen, 1.0) == 0.4
    assert next_look_s(ME, {}, 1.0) == 1.0
    assert next_look_s(ME, {SHARDS[0]: lease(SHARDS[0], OTHER, 0.001)}, 1.0) == 0.05


# ---------------------------------------------------------------------------------------------------------- looks


async def test_a_new_writer_gets_its_share(house: House, books: Collection) -> None:
    """The old owner hands over what should be the new one's; the next write goes there at once."""
    others = FakeOthers({0: "w1", 1: "w1"})
    async with house.writer("w1", SETTINGS, others) as first, house.writer("w2", SETTINGS, others) as second:
        await first.write(books, insert([1]), insert([2], shard=1))
        others.owners = {0: "w1", 1: "w2"}

        await first.node.owning.look()

        assert await owners(first) == {0: "w1", 1: "w2"}
        with pytest.raises(MishardsError) as refused:
            await first.write(books, insert([2], shard=1))
        assert (refused.value.kind, refused.value.detail) == (Kind.NOT_OWNER, "w2")
        assert (await second.write(books, insert([2], shard=1))).version == 2
        assert (await first.write(books, insert([1]))).version == 3


async def test_what_was_handed_over_is_taken_without_a_write(house: House, books: Collection) -> None:
    """The next look of the new owner takes it with a fresh nonce."""
    others = FakeOthers({0: "w1", 1: "w1"})
    async with house.writer("w1", SETTINGS, others) as first, house.writer("w2", SETTINGS, others) as second:
        await first.write(books, insert([1]))
        others.owners = {0: "w2", 1: "w2"}
        await first.node.owning.look()
        (given,) = await first.store.leases("shard/")

        await second.node.owning.look()

        (taken,) = await first.store.leases("shard/")
        assert (given.owner, taken.owner, given.nonce == taken.nonce) == ("w2", "w2", False)


@pytest.mark.parametrize(("settled_s", "alive"), [(1.0, {"w1", "w2"}), (1e9, {"w1"})])
async def test_nothing_moves_before_the_writers_are_settled(
    house: House, books: Collection, settled_s: float, alive: set[str]
) -> None:
    """Nor to a writer that does not answer."""
    others = FakeOthers({0: "w1"}, settled_s=settled_s)
    async with house.writer("w1", SETTINGS, others) as writer:
        await writer.write(books, insert([1]))
        others.owners, others.alive = {0: "w2"}, alive

        await writer.node.owning.look()

        assert await owners(writer) == {0: "w1"}


async def test_a_hand_over_waits_for_the_writes_under_way(house: House, books: Collection) -> None:
    """The group in flight is committed, those that come meanwhile wait and are sent to the new owner."""
    others = FakeOthers({0: "w1"})
    async with house.writer("w1", SETTINGS, others) as first, house.writer("w2", SETTINGS, others) as second:
        await first.write(books, insert([1]))
        entered, free = asyncio.Event(), asyncio.Event()

        async def held(request: CommitRequest) -> object:
            entered.set()
            await free.wait()
            return await first.store.inner.commit(request)

        first.store.commit = held
        under_way = asyncio.create_task(first.write(books, insert([2])))
        await entered.wait()
        others.owners = {0: "w2"}
        look = asyncio.create_task(first.node.owning.look())
        await until(lambda: first.node.leaving == 1)
        late = asyncio.create_task(first.write(books, insert([3])))
        await asyncio.sleep(0)
        free.set()
        await look

        assert (await under_way).version == 2
        with pytest.raises(MishardsError) as refused:
            await late
        assert (refused.value.kind, refused.value.detail) == (Kind.NOT_OWNER, "w2")
        assert (await second.write(books, insert([3]))).version == 3


async def test_the_shards_of_a_dead_writer_are_taken_when_their_leases_run_out(house: House, books: Collection) -> None:
    """By the one that should own them, without a write."""
    others = FakeOthers({0: "w2"}, alive=["w1"])
    async with house.writer("w1", SETTINGS, others) as writer:
        others.owners = {0: "w1"}
        shard = Shard(books.id, 0)
        await writer.store.acquire(shard.lease_name, OTHER, "old", 0.0)

        await writer.node.owning.look()

        assert await owners(writer) == {0: "w1"}
        assert await writer.store.commits(books.id, Version(0)) == []


async def test_after_an_outage_owners_keep_their_shards(house: House, books: Collection) -> None:
    """Leases that ran out while nobody could renew them are left to an owner that answers, but not for ever."""
    others = FakeOthers({0: "w2"})
    async with house.writer("w1", SETTINGS, others) as writer:
        shard = Shard(books.id, 0)
        await writer.store.acquire(shard.lease_name, OTHER, "old", 0.0)
        await writer.node.owning.look()
        assert (await writer.store.leases("shard/", True))[0].nonce == "old"

        await writer.store.acquire(shard.lease_name, OTHER, "old", -100.0)
        await writer.node.owning.look()

        assert others.suspected == ["w2"]


async def test_a_write_waits_for_the_lease_of_a_dead_owner(house: House, books: Collection) -> None:
    """It is not sent about: the lease runs out and the write goes on."""
    others = FakeOthers({0: "w1"}, alive=["w1"])
    async with house.writer("w1", SETTINGS, others) as writer:
        await writer.store.acquire(Shard(books.id, 0).lease_name, OTHER, "old", 0.1)

        assert (await writer.write(books, insert([1]))).version == 1


async def test_a_writer_that_stops_hands_everything_over(house: House, books: Collection) -> None:
    """Its shards are the others' before it is gone."""
    others = FakeOthers({0: "w1", 1: "w1"})
    async with house.writer("w2", SETTINGS, others) as second:
        async with house.writer("w1", SETTINGS, others) as first:
            await first.write(books, insert([1]), insert([2], shard=1))
            others.owners = {0: "w2", 1: "w2"}

        assert others.left
        assert await owners(second) == {0: "w2", 1: "w2"}
        assert (await second.write(books, insert([1]), insert([2], shard=1))).version == 2


async def test_a_writer_does_not_take_what_should_be_anothers(house: House, books: Collection) -> None:
    """Unless that one does not answer."""
    others = FakeOthers({0: "w2"})
    async with house.writer("w1", SETTINGS, others) as writer:
        with pytest.raises(MishardsError) as refused:
            await writer.write(books, insert([1]))
        assert (refused.value.kind, refused.value.detail) == (Kind.NOT_OWNER, "w2")

        others.alive = {"w1"}
        assert (await writer.write(books, insert([1]))).version == 1
