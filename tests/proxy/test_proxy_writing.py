"""Writes as the owners of the shards get them: split by key, rows and tombstones together (P2, P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_catalog import FakeMirror

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import Collection, CollectionId, DataType, Field, FieldId, Partition, PartitionId, Schema, Version
from mishards.ports import RequestOutcome
from mishards.proxy.catalog import Catalog
from mishards.proxy.requests import DeleteRequest, RowsRequest
from mishards.proxy.writing import Writing
from mishards.schema.columns import Column
from mishards.schema.keys import shard_of
from mishards.segment.fresh import decode_rows, decode_tombstones
from mishards.testing.metadata_records import refused
from mishards.wire.messages import ShardWrite, WriteReply, WriteRequest

SHARDS = 3


def schema(auto_id: bool = False) -> Schema:
    return Schema(
        fields=(
            Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True, auto_id=auto_id),
            Field(id=FieldId(101), name="vector", type=DataType.FLOAT_VECTOR, dim=2),
        )
    )


class FakeWriters:
    """Two owners: of shard 0, and of the others."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.requests: list[WriteRequest] = []
        self.dropped: set[int] = set()  # collections
        self.failures: list[MishardsError | None] = []  # one a call

    async def ask_owners(
        self, collection: Collection, shards: Sequence[int], call: Callable[..., Awaitable[WriteReply]], ends_s: float
    ) -> list[WriteReply]:
        owners = [[shard for shard in shards if shard == 0], [shard for shard in shards if shard > 0]]
        left_s = ends_s - self._clock.monotonic_s()
        return [await self._ask(partial(call, self, mine, left_s)) for mine in owners if mine]

    async def _ask(self, call: Callable[[], Awaitable[WriteReply]]) -> WriteReply:
        """Once more after a loss."""
        try:
            return await call()
        except MishardsError as error:
            if error.kind is not Kind.PEER_LOST:
                raise
        return await call()

    async def write(self, request: WriteRequest) -> WriteReply:
        if request.collection_id in self.dropped:
            raise MishardsError(Kind.COLLECTION_NOT_FOUND, "dropped")
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        self.requests.append(request)
        return WriteReply(len(self.requests), 1000 + len(self.requests))

    @property
    def parts(self) -> list[ShardWrite]:
        return [part for request in self.requests for part in request.shards]


class FakeQuerying:
    """Finds these keys at version 41 of the collection that the name means by then."""

    def __init__(self, mirror: FakeMirror, keys: Sequence[int]) -> None:
        self._mirror = mirror
        self._keys = keys

    async def keys(self, request: Any) -> tuple[Collection, pa.Array, int]:
        await self._mirror.refresh()
        return self._mirror.known["books"].collection, pa.array(self._keys, pa.int64()), 41


class FakeStore:
    """Knows what became of the parts of shards `written`."""

    def __init__(self) -> None:
        self.written: set[int] = set()
        self.down = False
        self.aborted: list[str] = []

    async def abort_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "down")
        self.aborted += ids
        done = {id: int(id.rpartition("/")[2]) in self.written for id in ids}
        return {id: RequestOutcome(it_is, CollectionId(1), Version(3), 3003 * it_is) for id, it_is in done.items()}


class FakeIds:
    def __init__(self) -> None:
        self.hang = False

    async def take(self, count: int) -> int:
        if self.hang:
            await asyncio.get_running_loop().create_future()
        return 7000


class Case:
    def __init__(self, *, auto_id: bool = False, selected: Sequence[int] = ()) -> None:
        self.clock = FakeClock()
        self.mirror = FakeMirror()
        self.put(schema=schema(auto_id))
        self.writers = FakeWriters(self.clock)
        mirror: Any = self.mirror
        self.store = FakeStore()
        self.ids = FakeIds()
        parts: list[Any] = [FakeQuerying(self.mirror, selected), self.writers, self.ids, self.store]
        self.writing = Writing(Catalog(mirror), *parts, self.clock)

    def put(self, **changes: Any) -> None:
        """The collection as the metadata service has it."""
        self.mirror.known.clear()
        self.mirror.put(**{"loaded": True, "shards": SHARDS, "schema": schema(), **changes})

    def made_anew(self) -> None:
        """Dropped and created again; this proxy hears of it when it asks."""
        self.writers.dropped = {1}
        self.mirror.news = lambda: self.put(id=2, created_ts=100)

    async def write(self, kind: Any, keys: Sequence[int] | None, rows: int, name: str = "books", **given: Any) -> Any:
        columns = {"vector": Column(np.arange(2 * rows, dtype=np.float32).reshape(rows, 2))}
        if keys is not None:
            columns["id"] = Column(np.array(keys, np.int64))
        return await self.writing.write(RowsRequest(kind=kind, collection=name, columns=columns, rows=rows, **given))

    async def delete(self, filter: str, partition: str = "") -> Any:
        return await self.writing.delete(DeleteRequest(collection="books", filter=filter, partition=partition))

    def written(self) -> dict[int, list[float]]:
        """Key to vector, every key in the shard that it belongs to."""
        found: dict[int, list[float]] = {}
        for part in self.writers.parts:
            if len(part.rows):
                batch = decode_rows(part.rows)
                assert (shard_of(batch.column("100"), SHARDS) == part.shard).all()
                found |= dict(zip(batch.column("100").to_pylist(), batch.column("101").to_pylist(), strict=True))
        return found

    def deleted(self) -> dict[int, tuple[int, int]]:
        """Key to (below, partition), every key in its shard."""
        found: dict[int, tuple[int, int]] = {}
        for part in self.writers.parts:
            if len(part.deletes):
                stones = decode_tombstones(part.deletes)
                assert (shard_of(stones.keys, SHARDS) == part.shard).all()
                pairs = zip(stones.below.tolist(), stones.partitions.tolist(), strict=True)
                found |= dict(zip(stones.keys.to_pylist(), pairs, strict=True))
        return found


@pytest.mark.parametrize("rows", [1, 50, 3000])
async def test_every_row_goes_to_the_shard_of_its_key(rows: int) -> None:
    """One request an owner, whatever the number of shards; the answer is the newest commit's time."""
    case = Case()

    done = await case.write("insert", range(rows), rows)

    assert case.written() == {key: [2 * key, 2 * key + 1] for key in range(rows)}
    assert len(case.writers.requests) == min(rows, 2)
    assert len({request.request_id for request in case.writers.requests}) == 1
    assert (done.count, done.ts, list(done.keys)) == (rows, 1000 + len(case.writers.requests), list(range(rows)))


@pytest.mark.parametrize("auto_id", [False, True])
async def test_rows_replace_older_ones_unless_their_keys_are_new(auto_id: bool) -> None:
    """Generated keys are new, also in a repetition, which takes effect only where the first call did not."""
    case = Case(auto_id=auto_id)

    await case.write("insert", None if auto_id else range(10), 10)

    assert {request.replaces for request in case.writers.requests} == {not auto_id}


async def test_an_upsert_with_generated_keys_deletes_the_old_and_writes_new_ones() -> None:
    """The old keys' rows die in the commits that bring the new ones, each in its own shard."""
    case = Case(auto_id=True)

    done = await case.write("upsert", [1, 2, 3, 4], 4)

    assert list(done.keys) == [7000, 7001, 7002, 7003]
    assert case.written() == {7000 + i: [2.0 * i, 2.0 * i + 1] for i in range(4)}
    assert case.deleted() == dict.fromkeys([1, 2, 3, 4], (0, 0))
    assert len({part.shard for part in case.writers.parts}) == len(case.writers.parts)


async def test_a_delete_of_keys_looks_nothing_up() -> None:
    """It kills all that is older than its commit, each key once."""
    case = Case(selected=[99])

    done = await case.delete("id in [5, 6, 5, 7]")

    assert case.deleted() == dict.fromkeys([5, 6, 7], (0, 0))
    assert done.count == 3


async def test_a_delete_of_keys_in_a_partition_spares_the_others() -> None:
    """The tombstones name the partition."""
    case = Case()

    await case.delete("id == 5", partition="north")

    assert case.deleted() == {5: (0, 2)}


async def test_a_delete_by_filter_kills_only_what_it_looked_at() -> None:
    """Rows written after the version that was searched live on (P4)."""
    case = Case(selected=[5, 8])

    done = await case.delete("id > 5")

    assert case.deleted() == dict.fromkeys([5, 8], (42, 0))
    assert done.count == 2


async def test_a_delete_that_selects_nothing_writes_nothing() -> None:
    """And counts nothing."""
    case = Case()

    assert (await case.delete("id > 5")).count == 0
    assert (await case.delete("id in []")).count == 0
    assert case.writers.requests == []


async def test_what_is_wrong_is_refused_before_any_writer_hears_of_it() -> None:
    """No filter, no rows, no such partition."""
    case = Case()

    await refused(Kind.PARAMETER_INVALID, case.delete("  "))
    await refused(Kind.PARAMETER_INVALID, case.write("insert", [], 0))
    await refused(Kind.PARAMETER_INVALID, Case(auto_id=True).write("insert", None, 0))
    await refused(Kind.PARTITION_NOT_FOUND, case.delete("id == 1", partition="south"))
    assert case.writers.requests == []


async def test_a_write_follows_a_collection_that_was_made_anew() -> None:
    """The writer says that the one this proxy knew is gone; the name is looked up once more."""
    case = Case()
    case.made_anew()

    await case.write("insert", range(10), 10)
    await case.delete("id in [1]")

    assert {request.collection_id for request in case.writers.requests} == {2}


async def test_a_write_follows_an_alias_that_moved() -> None:
    """It says by which name the client calls the collection; the writer that knows better refuses it."""
    case = Case()
    case.mirror.known["best"] = case.mirror.known["books"]

    def moves() -> None:
        case.put(id=2, name="films")
        case.mirror.known["best"] = case.mirror.known["films"]

    case.writers.dropped, case.mirror.news = {1}, moves

    await case.write("insert", range(10), 10, name="best")

    assert {(request.collection_id, request.name) for request in case.writers.requests} == {(2, "best")}


async def test_a_write_to_a_collection_that_is_gone_fails_once_it_is_sure() -> None:
    """No name, or still the one that the writer does not know: no endless repetition."""
    case = Case()
    case.writers.dropped = {1}
    await refused(Kind.COLLECTION_NOT_FOUND, case.write("insert", [1], 1))

    case.mirror.news = case.mirror.known.clear
    await refused(Kind.COLLECTION_NOT_FOUND, case.write("insert", [1], 1))


async def test_rows_for_the_collection_before_are_not_written_to_the_new_one() -> None:
    """A client that described the old schema must look again."""
    case = Case()
    case.made_anew()

    await refused(Kind.SCHEMA_MISMATCH, case.write("insert", [1], 1, schema_ts=50))
    assert case.writers.requests == []


async def test_a_delete_by_filter_goes_where_its_keys_were_found() -> None:
    """An alias may move meanwhile: the keys of one collection must not die in another, which still exists."""
    case = Case(selected=[5, 8])
    case.mirror.news = lambda: case.put(id=2)

    await case.delete("id > 5")

    assert {request.collection_id for request in case.writers.requests} == {2}
    assert case.deleted() == dict.fromkeys([5, 8], (42, 0))


async def test_rows_come_sorted_and_each_key_once() -> None:
    """As the writer stores them: in the order of their keys, and of a key given twice the last row."""
    case = Case()

    done = await case.write("insert", [9, 3, 7, 3, 1], 5)

    assert list(done.keys) == [9, 3, 7, 3, 1]
    assert case.written() == {9: [0, 1], 7: [4, 5], 3: [6, 7], 1: [8, 9]}
    for part in case.writers.parts:
        keys = decode_rows(part.rows).column("100").to_pylist()
        assert keys == sorted(set(keys))


def late() -> MishardsError:
    return MishardsError(Kind.DEADLINE, "no answer in time")


async def test_a_write_whose_answers_are_lost_succeeds_if_it_was_written() -> None:
    """The metadata service is asked, and the client never hears of it."""
    case = Case()
    case.writers.failures = [late()]
    case.store.written = {0, 1, 2}

    assert (await case.write("insert", range(50), 50)).ts == 3003


async def test_a_write_that_was_not_done_never_will_be() -> None:
    """Its parts are given up, so that what is still on its way is refused, and the error says so."""
    case = Case()
    case.writers.failures = [late()]

    error = await refused(Kind.DEADLINE, case.write("insert", range(50), 50))

    assert error.message == "no answer in time; nothing was written"
    assert [id.rpartition("/")[2] for id in case.store.aborted] == ["0", "1", "2"]


async def test_a_write_that_was_done_in_part_says_so() -> None:
    """Owners commit for themselves: the error names the shards whose rows were written."""
    case = Case()
    case.writers.failures = [None, MishardsError(Kind.STORAGE_UNAVAILABLE, "no storage")]
    case.store.written = {0}

    error = await refused(Kind.STORAGE_UNAVAILABLE, case.write("insert", range(50), 50))

    assert error.message == "no storage; only its rows in shards [0] were written"


async def test_a_metadata_service_that_hangs_keeps_no_write_longer_than_its_time() -> None:
    """Keys are not to be had: nothing was sent to a writer, and the error says that nothing was written."""
    case = Case(auto_id=True)
    case.ids.hang = True

    error = await refused(Kind.DEADLINE, case.write("insert", None, 1, timeout_s=0.0))

    assert error.message == "not answered within 0 s; nothing was written"
    assert (case.writers.requests, case.store.aborted) == ([], [])


async def test_without_the_metadata_service_the_outcome_stays_unknown() -> None:
    """The error does not pretend otherwise."""
    case = Case()
    case.writers.failures = [late()]
    case.store.down = True

    error = await refused(Kind.DEADLINE, case.write("insert", [1], 1))

    assert error.message == "no answer in time; whether it was written is not known"


async def test_a_refusal_of_everything_needs_no_question() -> None:
    """What one owner refused for a known reason was not written; a client that is slowed down will come again."""
    for kind in (Kind.SCHEMA_MISMATCH, Kind.RATE_LIMIT):
        case = Case()
        case.writers.failures = [MishardsError(kind, "no")]
        await refused(kind, case.write("insert", [1], 1))
        assert case.store.aborted == []


async def test_a_refusal_of_a_repetition_says_nothing_of_the_first_try() -> None:
    """What one writer did before it was lost, the next one need not know: the metadata service does."""
    for kind in (Kind.PARTITION_NOT_FOUND, Kind.COLLECTION_NOT_FOUND, Kind.RATE_LIMIT):
        case = Case()
        case.writers.failures = [MishardsError(Kind.PEER_LOST, "gone"), MishardsError(kind, "no")]
        case.store.written = {0, 1, 2}
        assert (await case.write("insert", range(50), 50)).ts == 3003

        case.writers.failures = [MishardsError(Kind.PEER_LOST, "gone"), MishardsError(kind, "no")]
        case.store.written = set()
        assert (await refused(kind, case.write("insert", range(50), 50))).message == "no; nothing was written"


async def test_clients_do_not_repeat_by_themselves_what_was_written_in_part() -> None:
    """As they do with RATE_LIMIT: rows with generated keys would be there twice."""
    case = Case()
    case.writers.failures = [None, MishardsError(Kind.RATE_LIMIT, "full")]
    case.store.written = {0}

    error = await refused(Kind.UNAVAILABLE, case.write("insert", range(50), 50))

    assert error.message == "full; only its rows in shards [0] were written"


async def test_a_partition_that_was_made_anew_is_written_under_its_new_id() -> None:
    """This proxy hears of it when a writer does not know the old one any more; then the write is sent once more."""
    case = Case()
    old, new = (Partition(PartitionId(id), "_default", 1) for id in (7, 8))
    case.put(partitions=(old,))
    case.mirror.news = lambda: case.put(partitions=(new,), updated_ts=100)
    case.writers.failures = [MishardsError(Kind.PARTITION_NOT_FOUND, "7")]

    await case.write("insert", [1], 1)

    assert {request.partition_id for request in case.writers.requests} == {new.id}


async def test_what_is_written_in_part_is_not_written_again() -> None:
    """Nor what no news explain."""
    case = Case()
    old, new = (Partition(PartitionId(id), "_default", 1) for id in (7, 8))
    case.put(partitions=(old,))
    case.writers.failures = [MishardsError(Kind.PARTITION_NOT_FOUND, "7")]
    await refused(Kind.PARTITION_NOT_FOUND, case.write("insert", [1], 1))
    case.mirror.news = lambda: case.put(partitions=(new,), updated_ts=100)
    case.store.written = {0}
    case.writers.failures = [None, MishardsError(Kind.PARTITION_NOT_FOUND, "7")]

    error = await refused(Kind.PARTITION_NOT_FOUND, case.write("insert", list(range(20)), 20))

    assert "only its rows in shards [0] were written" in error.message
