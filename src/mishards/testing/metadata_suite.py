"""What every metadata service must do: subclass `MetadataSuite` and give it two clients of one empty database.

class TestMyStore(MetadataSuite):
    @pytest.fixture
    async def store(self, ...): ...      # open

    @pytest.fixture
    async def other(self, store, ...): ...  # open, on the same database
"""

from __future__ import annotations

import asyncio
import itertools
import random

import msgspec
import pytest
from msgspec.structs import replace

from mishards.clock import SystemClock, hybrid
from mishards.errors import Kind, MishardsError
from mishards.metadata.deltas import delta_of, stamp
from mishards.model import (
    CollectionId,
    Commit,
    Delta,
    File,
    FileId,
    FileKind,
    Member,
    NodeId,
    Partition,
    PartitionId,
    Version,
)
from mishards.ports import MetadataStore
from mishards.testing.garbage_suite import GarbageSuite
from mishards.testing.metadata_races import RacesSuite
from mishards.testing.metadata_records import NOW_MS, a_collection, a_commit, a_file, refused
from mishards.testing.names_suite import NamesSuite
from mishards.testing.pins_suite import PinsSuite
from mishards.testing.requests_suite import RequestsSuite

ME, YOU = NodeId("node-me"), NodeId("node-you")
LEASE = "shard/1/0"


class DefinitionsSuite:
    """Collections and ids."""

    async def test_ids_are_never_taken_twice(self, store: MetadataStore, other: MetadataStore) -> None:
        """Blocks taken at once by two clients do not overlap and lie below 2**63."""
        firsts = await asyncio.gather(*(client.take_ids(10) for client in (store, other) * 10))

        assert len({first + i for first in firsts for i in range(10)}) == 200
        assert min(firsts) > 0 and max(firsts) < 2**62

    async def test_ids_are_ahead_of_the_clock(self, store: MetadataStore) -> None:
        """So a service that has forgotten some that it gave away does not give them again."""
        long_ago = hybrid(SystemClock().unix_ms() - 600_000)

        assert await store.take_ids(1) > long_ago

    async def test_a_definition_comes_back_whole(self, store: MetadataStore, other: MetadataStore) -> None:
        """Another client reads the collection as it was created, at version 0."""
        collection = a_collection(aliases=("novels", "bücher"), properties={"a": "b"})
        await store.create_collection(collection)

        (head,) = await other.heads()
        assert (head.collection_id, head.version) == (1, 0)
        assert await other.collections([CollectionId(1), CollectionId(9)]) == [(collection, head.ddl)]
        assert await other.delta(CollectionId(1), Version(0)) == Delta(
            collection_id=CollectionId(1), after=Version(0), version=Version(0), ts=collection.created_ts, head=""
        )

    async def test_of_two_changes_to_one_definition_one_wins(self, store: MetadataStore, other: MetadataStore) -> None:
        """A change based on an outdated definition is a conflict and changes nothing."""
        old = a_collection()
        await store.create_collection(old)
        first = replace(old, properties={"a": "1"}, updated_ts=old.updated_ts + 1)
        await store.replace_collection(old, first)

        second = replace(old, properties={"a": "2"}, aliases=("x",), updated_ts=old.updated_ts + 2)
        await refused(Kind.CONFLICT, other.replace_collection(old, second))

        assert [collection for collection, _ in await store.collections([old.id])] == [first]

    async def test_a_dropped_collection_is_gone_for_clients(self, store: MetadataStore) -> None:
        """Its names are free, nothing reads, changes or commits to it, and dropping it again is no error."""
        collection = a_collection(aliases=("novels",))
        await store.create_collection(collection)

        await store.drop_collection(collection.id)
        await store.drop_collection(collection.id)
        await store.drop_collection(CollectionId(99))

        assert await store.heads() == []
        assert await store.collections([collection.id]) == []
        await refused(Kind.COLLECTION_NOT_FOUND, store.delta(collection.id, Version(0)))
        await refused(Kind.COLLECTION_NOT_FOUND, store.replace_collection(collection, collection))
        await refused(Kind.COLLECTION_NOT_FOUND, store.commit(a_commit("u1", a_file(1))))
        await store.create_collection(a_collection(2, "books"))
        await store.create_collection(a_collection(3, "novels"))


class ChainSuite:
    """Commits and what they list."""

    async def test_versions_have_no_gap_and_timestamps_grow(self, store: MetadataStore, other: MetadataStore) -> None:
        """Commits by two clients at once make versions 1..n, each linked to the one before, ts growing (I2)."""
        await store.create_collection(a_collection())
        clients = [store, other] * 10
        done = await asyncio.gather(
            *(
                client.commit(a_commit(f"u{i}", a_file(i + 1), now_ms=NOW_MS - i * 1000))
                for i, client in enumerate(clients)
            )
        )

        chain = await store.commits(CollectionId(1), Version(0))
        assert [commit.version for commit in chain] == list(range(1, 21))
        assert [commit.previous for commit in chain] == ["", *(commit.uuid for commit in chain[:-1])]
        assert all(a.ts < b.ts for a, b in itertools.pairwise(chain))
        assert sorted(done, key=lambda commit: commit.version) == chain
        assert await other.commits(CollectionId(1), Version(18)) == chain[18:]

    async def test_the_timestamp_is_the_wall_clock_when_that_grows(self, store: MetadataStore) -> None:
        """ts = max(hybrid(now), last + 1)."""
        await store.create_collection(a_collection())

        ts = [(await store.commit(a_commit(f"u{i}", now_ms=now_ms))).ts for i, now_ms in enumerate([10, 10, 5, 20])]

        assert ts == [hybrid(10), hybrid(10, 1), hybrid(10, 2), hybrid(20)]

    async def test_the_same_commit_again_is_the_same_commit(self, store: MetadataStore, other: MetadataStore) -> None:
        """Repeating a commit, at once or after its lease was lost, returns the one there is and adds nothing."""
        await store.create_collection(a_collection())
        await store.acquire(LEASE, ME, "n1", 60)
        await store.commit(a_commit("u0", a_file(1), leases=((LEASE, "n1"),)))
        request = a_commit("u1", a_file(2), removed=(1,), leases=((LEASE, "n1"),))

        at_once = await asyncio.gather(*(client.commit(request) for client in (store, other) * 3))
        await store.release(LEASE, "n1")
        later = await store.commit(request)

        assert {msgspec.json.encode(commit) for commit in [*at_once, later]} == {msgspec.json.encode(later)}
        assert len(await store.commits(CollectionId(1), Version(0))) == 2
        assert await store.find_commit(CollectionId(1), "u1") == later
        assert await store.find_commit(CollectionId(1), "u2") is None

    async def test_files_get_their_version(self, store: MetadataStore) -> None:
        """Files are listed with `added` = the commit's version; so is the horizon of fresh rows, with its timestamp."""
        await store.create_collection(a_collection())
        rows, tombstones = a_file(1), a_file(2, FileKind.TOMBSTONES)
        segment = replace(a_file(3, FileKind.SEGMENT), horizon=Version(7), segment_id=FileId(3))

        await store.commit(a_commit("u1"))
        commit = await store.commit(a_commit("u2", rows, tombstones, segment))

        delta = await store.delta(CollectionId(1), Version(0))
        assert delta.added == tuple(stamp(file, Version(2), commit.ts) for file in (rows, tombstones, segment))
        assert [file.horizon for file in delta.added] == [2, 0, 7]
        assert [file.newest_ts for file in delta.added] == [commit.ts, 0, 0]

    async def test_a_commit_without_its_lease_does_nothing(self, store: MetadataStore, other: MetadataStore) -> None:
        """A wrong nonce, a lease taken over, released or never taken: FENCED, and no trace of the commit (I1)."""
        await store.create_collection(a_collection())
        await store.acquire(LEASE, ME, "n1", 0.0)
        await store.acquire("shard/1/1", ME, "n1", 60)
        await store.commit(a_commit("u1", a_file(1), leases=((LEASE, "n1"), ("shard/1/1", "n1"))))

        await other.acquire(LEASE, YOU, "n2", 60)
        await refused(Kind.FENCED, store.commit(a_commit("u2", a_file(2), leases=(("shard/1/1", "n1"), (LEASE, "n1")))))
        await refused(Kind.FENCED, store.commit(a_commit("u3", a_file(3), leases=(("shard/1/2", "n1"),))))
        await store.release("shard/1/1", "n1")
        await refused(Kind.FENCED, store.commit(a_commit("u4", a_file(4), leases=(("shard/1/1", "n1"),))))

        (head,) = await store.heads()
        assert head.version == 1
        assert await store.payloads([FileId(id) for id in (1, 2, 3, 4)]) == {1: b"payload 1"}
        assert [file.id for file in (await store.delta(CollectionId(1), Version(0))).added] == [1]

    async def test_rows_of_a_dropped_partition_are_refused(self, store: MetadataStore, other: MetadataStore) -> None:
        """Whoever checked them against an older definition is told: nobody would see them. Deletes, and rows that are
        checked against nothing, pass; other changes of the definition are no reason."""
        north, south = (Partition(PartitionId(id), f"p{id}", 1) for id in (7, 8))
        checked = a_collection(partitions=(north, south))
        await store.create_collection(checked)
        rows = replace(a_file(1), partition_id=north.id)
        fewer = replace(checked, partitions=(north,), updated_ts=checked.updated_ts + 1)
        await other.replace_collection(checked, fewer)
        await store.commit(a_commit("u1", rows, defined_ts=checked.updated_ts))

        late = replace(a_file(2), partition_id=south.id)
        stones = replace(a_file(3, FileKind.TOMBSTONES), partition_id=south.id)
        error = await refused(
            Kind.PARTITION_NOT_FOUND, store.commit(a_commit("u2", late, stones, defined_ts=checked.updated_ts))
        )

        assert error.detail == str(south.id)
        assert [file.id for file in (await store.delta(CollectionId(1), Version(0))).added] == [rows.id]
        await store.commit(a_commit("u3", stones, defined_ts=checked.updated_ts))
        assert (await store.commit(a_commit("u4", late))).version == 3

    async def test_a_file_is_replaced_once(self, store: MetadataStore, other: MetadataStore) -> None:
        """Of layout commits with a common input one succeeds; the others conflict and list nothing (I12)."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("u0", *(a_file(id) for id in range(1, 8))))

        merges = [
            client.commit(a_commit(f"u{i}", a_file(100 + i, FileKind.SEGMENT), removed=(1, 1 + i)))
            for i, client in enumerate([store, other] * 3, start=1)
        ]
        outcomes = await asyncio.gather(*merges, return_exceptions=True)

        won = [outcome for outcome in outcomes if isinstance(outcome, Commit)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, MishardsError)]
        assert len(won) == 1 and [error.kind for error in lost] == [Kind.CONFLICT] * 5
        delta = await store.delta(CollectionId(1), Version(0))
        assert len(delta.added) == 7 - 2 + 1
        await refused(Kind.CONFLICT, store.commit(a_commit("u9", removed=(99,))))

    async def test_many_files_in_one_commit(self, store: MetadataStore) -> None:
        """A commit may list and replace thousands of files."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("u1", *(a_file(id) for id in range(1, 2001))))

        await store.commit(a_commit("u2", a_file(5000, FileKind.SEGMENT), removed=tuple(range(1, 2001))))

        delta = await store.delta(CollectionId(1), Version(1))
        assert delta.removed == {FileId(id): Version(2) for id in range(1, 2001)}
        assert len(await store.payloads([FileId(id) for id in range(1, 2001)])) == 2000

    @pytest.mark.parametrize("seed", range(3))
    async def test_deltas_add_up(self, store: MetadataStore, seed: int) -> None:
        """From any version on, a delta leads to the files that the commits themselves make; its push says the same."""
        draw = random.Random(seed)
        await store.create_collection(a_collection())
        live: dict[FileId, File] = {}
        history: list[dict[FileId, File]] = [{}]
        pushes: list[Delta] = []
        for step in range(1, 25):
            added = [a_file(step * 10 + i, draw.choice(list(FileKind))) for i in range(draw.randrange(3))]
            removed = tuple(draw.sample(sorted(live), draw.randrange(min(3, len(live) + 1))))
            request = a_commit(f"u{step}", *added, removed=removed)
            commit = await store.commit(request)
            pushes.append(delta_of(request, commit))
            live = {id: file for id, file in live.items() if id not in removed}
            live |= {file.id: stamp(file, commit.version, commit.ts) for file in added}
            history.append(live)

        for after in range(len(history)):
            delta = await store.delta(CollectionId(1), Version(after))
            assert (delta.after, delta.version, delta.head) == (after, 24, "u24")
            assert (delta.previous, list(delta.heads.items())) == (
                f"u{after}" if after else "",
                [(version, f"u{version}") for version in range(after + 1, 25)],
            )
            assert fold(history[after], [delta]) == live
            assert fold(history[after], pushes[after:]) == live

    async def test_a_delta_over_forgotten_records_is_a_full_one(self, store: MetadataStore) -> None:
        """Whoever is too far behind to learn of a removal gets all live files instead, marked by after=0."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("u1", a_file(1), a_file(2)))
        await store.commit(a_commit("u2", a_file(3), removed=(1,)))
        await store.commit(a_commit("u3", a_file(4), removed=(2,)))

        await store.forget_files([FileId(1), FileId(3)])

        behind = await store.delta(CollectionId(1), Version(1))
        near = await store.delta(CollectionId(1), Version(2))
        assert behind.after == 0 and [file.id for file in behind.added] == [3, 4]
        assert near.after == 2 and near.removed == {2: 3}


class LeasesSuite:
    """Leases, members and garbage."""

    async def test_a_lease_has_one_owner(self, store: MetadataStore, other: MetadataStore) -> None:
        """Of owners that try at once one gets it; the others learn who."""
        attempts = [
            client.acquire(LEASE, NodeId(f"node-{i}"), f"n{i}", 60) for i, client in enumerate([store, other] * 4)
        ]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)

        (lease,) = await store.leases("shard/")
        errors = [outcome for outcome in outcomes if isinstance(outcome, MishardsError)]
        assert len(errors) == 7
        assert {(error.kind, error.detail) for error in errors} == {(Kind.LEASE_HELD, lease.owner)}
        assert 50 < lease.left_s <= 60

    async def test_a_lease_passes_on_when_expired_or_released(self, store: MetadataStore, other: MetadataStore) -> None:
        """A held lease stays; an expired or released one is free, and its old nonce renews and releases nothing."""
        await store.acquire(LEASE, ME, "n1", 60)
        await refused(Kind.LEASE_HELD, other.acquire(LEASE, YOU, "n2", 60))
        assert await store.renew([(LEASE, "n1")], 0.0) == {LEASE}
        assert await store.leases("") == []

        await other.acquire(LEASE, YOU, "n2", 60)
        assert await store.renew([(LEASE, "n1")], 60) == set()
        await store.release(LEASE, "n1")
        assert [(lease.owner, lease.nonce) for lease in await store.leases("")] == [(YOU, "n2")]

        await other.release(LEASE, "n2")
        assert (await store.acquire(LEASE, ME, "n3", 60)).nonce == "n3"

    async def test_an_owner_takes_its_own_lease_again(self, store: MetadataStore) -> None:
        """A node that comes back takes its lease at once with a fresh nonce, which fences its former self."""
        await store.create_collection(a_collection())
        await store.acquire(LEASE, ME, "n1", 60)

        await store.acquire(LEASE, ME, "n2", 60)

        await refused(Kind.FENCED, store.commit(a_commit("u1", a_file(1), leases=((LEASE, "n1"),))))
        await store.commit(a_commit("u2", a_file(1), leases=((LEASE, "n2"),)))

    async def test_renewal_keeps_what_nobody_took(self, store: MetadataStore) -> None:
        """Renewing extends the pairs that hold, expired or not, and names them."""
        await store.acquire("task/a", ME, "n1", 0.0)
        await store.acquire("task/b", ME, "n2", 60)

        assert await store.renew([("task/a", "n1"), ("task/b", "other"), ("task/c", "n3")], 60) == {"task/a"}
        assert [lease.name for lease in await store.leases("task/")] == ["task/a", "task/b"]

    async def test_a_prefix_is_taken_literally(self, store: MetadataStore) -> None:
        """`_`, `%` and case have no special meaning in a prefix of lease names."""
        for name in ("a_b", "axb", "a%b", "A_b"):
            await store.acquire(name, ME, "n", 60)

        assert [lease.name for lease in await store.leases("a_")] == ["a_b"]
        assert [lease.name for lease in await store.leases("a%")] == ["a%b"]

    async def test_members_are_kept_by_their_last_beat(self, store: MetadataStore, other: MetadataStore) -> None:
        """A member's record is its last one, until it is forgotten."""
        member = Member(id=ME, roles=("reader",), address="tcp://127.0.0.1:1", weight=0.5)
        await store.beat(member)
        await store.beat(replace(member, beat=2))
        await other.beat(Member(id=YOU, roles=("proxy", "writer"), address="tcp://127.0.0.1:2"))

        assert {found.id: found.beat for found in await other.members()} == {ME: 2, YOU: 0}
        assert replace(member, beat=2) in await store.members()

        await store.forget_member(YOU)
        await store.forget_member(YOU)
        assert [found.id for found in await store.members()] == [ME]

    async def test_garbage_is_what_was_removed_long_ago(self, store: MetadataStore) -> None:
        """Removed files are listed by age and up to a limit, and forgotten for good; live ones cannot be forgotten."""
        await store.create_collection(a_collection())
        await store.commit(a_commit("u1", a_file(1), a_file(2), a_file(3)))
        await store.commit(a_commit("u2", removed=(1, 2)))

        assert await store.removed_files(3600, 10) == []
        assert len(await store.removed_files(0, 1)) == 1
        assert {(file.id, file.removed) for file in await store.removed_files(0, 10)} == {(1, 2), (2, 2)}
        assert len(await store.removed_files(0, 10, a_file(1).kind)) == 2
        assert await store.removed_files(0, 10, FileKind.SEGMENT) == []

        await store.forget_files([FileId(1), FileId(2), FileId(3)])
        assert await store.removed_files(0, 10) == []
        assert set(await store.payloads([FileId(id) for id in (1, 2, 3)])) == {3}
        assert [file.id for file in (await store.delta(CollectionId(1), Version(0))).added] == [3]

    async def test_old_commits_are_forgotten_but_the_newest(self, store: MetadataStore) -> None:
        """Records of commits of some age go, but for the newest few of each collection; state and chain stay."""
        for id in (1, 2):
            await store.create_collection(a_collection(id, f"books{id}"))
        for number in range(5):
            await store.commit(a_commit(f"u{number}", a_file(number + 1)))
        before = await store.delta(CollectionId(1), Version(0))

        assert await store.forget_commits(1e9, 2) == 0
        assert await store.forget_commits(-1e9, 2) == 3  # by a clock far ahead
        assert await store.forget_commits(-1e9, 2) == 0

        assert [commit.uuid for commit in await store.commits(CollectionId(1), Version(0))] == ["u3", "u4"]
        known = {Version(4): "u3", Version(5): "u4"}
        assert await store.delta(CollectionId(1), Version(0)) == replace(before, heads=known)
        assert await store.find_commit(CollectionId(1), "u0") is None
        link = await store.commit(a_commit("u5", a_file(6)))
        assert (link.version, link.previous) == (6, "u4")

    async def test_a_dropped_collection_is_forgotten_whole(self, store: MetadataStore) -> None:
        """It is listed by the age of its drop; forgetting deletes its records and no others, never a live one."""
        await store.create_collection(a_collection(1, "books"))
        await store.create_collection(a_collection(11, "films"))
        await store.commit(a_commit("u1", a_file(1)))
        for name in ("shard/1/0", "task/1/0/merge/1", "shard/11/0"):
            await store.acquire(name, ME, "n", 60)
        await refused(Kind.CONFLICT, store.forget_collection(CollectionId(1)))

        await store.drop_collection(CollectionId(1))
        assert await store.dropped_collections(3600) == []
        assert await store.dropped_collections(0) == [1]
        await store.forget_collection(CollectionId(1))
        await store.forget_collection(CollectionId(1))

        assert await store.dropped_collections(0) == []
        assert await store.payloads([FileId(1)]) == {}
        assert await store.commits(CollectionId(1), Version(0)) == []
        assert [lease.name for lease in await store.leases("")] == ["shard/11/0"]
        assert [head.collection_id for head in await store.heads()] == [11]


class MetadataSuite(
    DefinitionsSuite, NamesSuite, ChainSuite, LeasesSuite, GarbageSuite, RacesSuite, PinsSuite, RequestsSuite
):
    """The contract of `ports.MetadataStore`."""


def fold(files: dict[FileId, File], deltas: list[Delta]) -> dict[FileId, File]:
    """The live files after the deltas."""
    live = dict(files)
    for delta in deltas:
        if delta.after == 0 and delta.version > 1:
            live = {}
        live |= {file.id: replace(file, removed=Version(0)) for file in delta.added}
        live = {id: file for id, file in live.items() if id not in delta.removed}
    return live
