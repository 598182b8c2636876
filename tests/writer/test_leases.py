"""Shard leases against a real store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from writer_house import Faults, Rivals

from mishards.clock import SystemClock
from mishards.errors import Kind, MishardsError
from mishards.metadata.store import open_store
from mishards.model import CollectionId, NodeId
from mishards.writer.leases import ShardLeases
from mishards.writer.shard import Shard

SHARD = Shard(CollectionId(1), 0)
LEASE_S = 60.0
BRIEF_S = 0.03  # renewed each hundredth of a second


class CountedStore(Faults):
    """Tells when renewals were asked."""

    def __init__(self, inner: object) -> None:
        super().__init__(inner)  # type: ignore[arg-type]
        self.renewals: asyncio.Queue[set[str]] = asyncio.Queue()

    async def renew(self, pairs: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        renewed: set[str] = await self.inner.renew(pairs, LEASE_S)
        self.renewals.put_nowait(renewed)
        return renewed


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountedStore]:
    store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
    await store.open()
    yield CountedStore(store)
    await store.close()


def leases_of(store: CountedStore, node: str, *, lease_s: float = LEASE_S, live: bool = True) -> ShardLeases:
    return ShardLeases(store, NodeId(node), SystemClock(), lease_s, lambda _: int(live), Rivals())  # type: ignore[arg-type]


async def use(leases: ShardLeases) -> None:
    async with leases.using([SHARD]):
        pass


async def test_a_shard_is_taken_once_and_kept(store: CountedStore) -> None:
    """However many ask at once, a shard is acquired once, and its nonce stays until it is forgotten."""
    leases = leases_of(store, "w1")

    nonces = await asyncio.gather(*(leases.hold(SHARD) for _ in range(5)))

    assert len(set(nonces)) == 1
    leases.forget(SHARD)
    assert await leases.hold(SHARD) != nonces[0]


async def test_a_stop_gives_the_shards_back(store: CountedStore) -> None:
    """A stopped writer's shards are free at once for the next."""
    first, second = leases_of(store, "w1"), leases_of(store, "w2")
    await first.start()
    await first.hold(SHARD)
    with pytest.raises(MishardsError) as refused:
        await second.hold(SHARD)

    await first.stop()

    assert (refused.value.kind, refused.value.detail) == (Kind.NOT_OWNER, "w1")
    assert await second.hold(SHARD)


async def test_a_stop_gives_back_what_was_handed_over_meanwhile(store: CountedStore) -> None:
    """As when all writers stop at once: nobody waits for it afterwards."""
    first, second = leases_of(store, "w1"), leases_of(store, "w2")
    await first.hold(SHARD)
    await first.hand_over(SHARD, NodeId("w2"))

    await second.stop()

    assert await store.leases("shard/") == []


async def test_a_hand_over_waits_for_writes(store: CountedStore) -> None:
    """New ones wait until it is done, and are told who has the shard."""
    leases = leases_of(store, "w1")
    async with leases.using([SHARD]):
        giving = asyncio.create_task(leases.hand_over(SHARD, NodeId("w2")))
        await asyncio.sleep(0)
        late = asyncio.create_task(use(leases))
        await asyncio.sleep(0)
        assert leases.leaving == 1
        assert not giving.done()
    await giving

    with pytest.raises(MishardsError) as refused:
        await late
    assert (refused.value.kind, refused.value.detail) == (Kind.NOT_OWNER, "w2")


async def test_leases_are_renewed_while_the_writer_lives(store: CountedStore) -> None:
    """A lease outlives its time as long as it is renewed."""
    leases = leases_of(store, "w1", lease_s=BRIEF_S)
    await leases.start()
    nonce = await leases.hold(SHARD)

    assert await store.renewals.get() == {SHARD.lease_name}

    (lease,) = await store.leases("shard/")
    assert (lease.nonce, lease.left_s > BRIEF_S) == (nonce, True)
    await leases.stop()


async def test_a_lost_lease_is_noticed(store: CountedStore) -> None:
    """A shard that another writer has taken is held no more after the next renewal."""
    leases = leases_of(store, "w1", lease_s=BRIEF_S)
    nonce = await leases.hold(SHARD)
    await store.release(SHARD.lease_name, nonce)
    await store.acquire(SHARD.lease_name, NodeId("w2"), "theirs", LEASE_S)

    await leases.start()
    assert await store.renewals.get() == set()
    await asyncio.sleep(0)

    with pytest.raises(MishardsError) as refused:
        await leases.hold(SHARD)
    assert refused.value.detail == "w2"
    await leases.stop()


async def test_the_shards_of_a_dropped_collection_are_let_go(store: CountedStore) -> None:
    """What belongs to no collection any more is given back at the next renewal."""
    leases = leases_of(store, "w1", lease_s=BRIEF_S, live=False)
    released = asyncio.Event()

    async def release(name: str, nonce: str) -> None:
        await store.inner.release(name, nonce)
        released.set()

    store.release = release
    await leases.hold(SHARD)
    await leases.start()

    await released.wait()
    assert leases.held() == []
    assert await store.leases("shard/") == []
    await leases.stop()
