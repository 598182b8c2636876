"""What a metadata service knows of clients' requests (once, or never), of leases that move, and of commits it lost."""

from __future__ import annotations

import asyncio

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, NodeId, Version
from mishards.ports import FORKED, MetadataStore
from mishards.testing.metadata_records import a_collection, a_commit, refused

SHARD = "shard/1/0"


class RequestsSuite:
    """Requests and hand-over."""

    async def test_a_request_is_recorded_with_its_commit(self, store: MetadataStore) -> None:
        """Who asks later gets the version and time of the commit."""
        await store.create_collection(a_collection(1))
        done = await store.commit(a_commit("u1", requests=("r1", "r2")))

        found = await store.find_requests(["r1", "r2", "r3"])

        known = {id: (each.applied, each.version, each.ts) for id, each in found.items()}
        assert known == dict.fromkeys(("r1", "r2"), (True, done.version, done.ts))

    async def test_a_second_commit_of_a_request_is_refused(self, store: MetadataStore) -> None:
        """With all that it has; the same commit again is found."""
        await store.create_collection(a_collection(1))
        done = await store.commit(a_commit("u1", requests=("r1",)))

        await refused(Kind.CONFLICT, store.commit(a_commit("u2", requests=("r0", "r1"))))

        assert await store.find_requests(["r0"]) == {}
        assert await store.commit(a_commit("u1", requests=("r1",))) == done
        assert len(await store.commits(CollectionId(1), Version(0))) == 1

    async def test_an_abort_and_a_commit_agree(self, store: MetadataStore, other: MetadataStore) -> None:
        """Of many that race, each request has one outcome, that of its commit."""
        await store.create_collection(a_collection(1))
        commits = (store.commit(a_commit(f"u{n}", requests=(f"r{n}",))) for n in range(20))
        aborts = (other.abort_requests([f"r{n}"]) for n in range(20))

        results = await asyncio.gather(*commits, *aborts, return_exceptions=True)

        for number, (made, outcome) in enumerate(zip(results[:20], results[20:], strict=True)):
            assert isinstance(outcome, dict), outcome
            assert not isinstance(made, MishardsError) or made.kind is Kind.CONFLICT
            assert outcome[f"r{number}"].applied != isinstance(made, MishardsError)

    async def test_a_definition_is_recorded_too(self, store: MetadataStore) -> None:
        """Creating, changing and dropping, each once."""
        books = a_collection(1)
        await store.create_collection(books, "r1")
        await refused(Kind.CONFLICT, store.create_collection(a_collection(2, "films"), "r1"))
        await store.replace_collections([(books, books)], "r2")
        await refused(Kind.CONFLICT, store.drop_collection(CollectionId(1), "r2"))
        await store.drop_collection(CollectionId(1), "r3")

        found = await store.find_requests(["r1", "r2", "r3"])

        known = {id: (each.applied, each.collection_id, each.version) for id, each in found.items()}
        assert known == dict.fromkeys(("r1", "r2", "r3"), (True, 1, 0))

    async def test_old_outcomes_are_forgotten(self, store: MetadataStore) -> None:
        """The oldest first, not all at once."""
        await store.create_collection(a_collection(1))
        await store.commit(a_commit("u1", requests=("r1", "r2", "r3")))
        await store.abort_requests(["r4"])

        assert await store.forget_requests(60.0, 10) == 0
        assert await store.forget_requests(-60.0, 3) == 3
        assert await store.forget_requests(-60.0, 3) == 1
        assert await store.find_requests(["r1", "r4"]) == {}

    async def test_a_lease_is_handed_over(self, store: MetadataStore) -> None:
        """Its new owner takes it at once, the old one can neither renew nor give it again."""
        await store.acquire(SHARD, NodeId("a"), "n1", 60)

        assert await store.hand_over(SHARD, "n1", NodeId("b"), "secret", 60)
        assert not await store.hand_over(SHARD, "n1", NodeId("c"), "secret", 60)

        assert await store.renew([(SHARD, "n1")], 60) == set()
        await refused(Kind.LEASE_HELD, store.acquire(SHARD, NodeId("a"), "n2", 60))
        assert (await store.acquire(SHARD, NodeId("b"), "n3", 60)).nonce == "n3"

    async def test_leases_that_ran_out_can_be_seen(self, store: MetadataStore) -> None:
        """Only when asked for."""
        await store.acquire(SHARD, NodeId("a"), "n1", -5)

        assert await store.leases("shard/") == []
        (lease,) = await store.leases("shard/", True)
        assert (lease.owner, lease.left_s < 0) == ("a", True)

    async def test_hundreds_of_leases_are_renewed_at_once(self, store: MetadataStore) -> None:
        """Those that hold still, and no others."""
        for number in range(600):
            await store.acquire(f"shard/1/{number}", NodeId("a"), f"n{number}", 60)
        await store.release("shard/1/7", "n7")

        held = await store.renew([(f"shard/1/{number}", f"n{number}") for number in range(600)], 60)

        assert held == {f"shard/1/{number}" for number in range(600)} - {"shard/1/7"}

    async def test_a_commit_knows_the_one_before_it(self, store: MetadataStore) -> None:
        """It is refused when that is lost; the head and a delta name the commits that they stand on."""
        await store.create_collection(a_collection(1))
        await store.commit(a_commit("u1"))
        await store.commit(a_commit("u2", follows="u1"))

        error = await refused(Kind.CONFLICT, store.commit(a_commit("u3", follows="lost")))

        assert error.detail == FORKED
        (head,) = await store.heads()
        assert (head.version, head.head) == (2, "u2")
        assert (await store.delta(CollectionId(1), Version(1))).previous == "u1"

    async def test_what_was_made_of_lost_versions_is_refused(self, store: MetadataStore) -> None:
        """A layout names the versions that it was computed from: each must be the commit that it was then."""
        await store.create_collection(a_collection(1))
        await store.commit(a_commit("u1"))
        await store.commit(a_commit("u2"))
        one, two = (Version(1), "u1"), (Version(2), "u2")

        await refused(Kind.CONFLICT, store.commit(a_commit("a", made_of=(one, (Version(2), "lost")))))
        await refused(Kind.CONFLICT, store.commit(a_commit("b", made_of=((Version(9), "lost"),))))

        assert (await store.commit(a_commit("c", made_of=(one, two)))).version == 3
