"""Group formation, with a commit that the test holds."""

import asyncio
from collections.abc import Sequence

import pytest
from writer_house import until

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId
from mishards.wire.messages import WriteReply
from mishards.writer.groups import Groups, Outcome
from mishards.writer.prepared import PreparedWrite


class HeldCommit:
    """Records the sizes of its groups; each commit waits for one `free.release()`."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.free = asyncio.Semaphore(0)
        self.failure: MishardsError | None = None

    async def __call__(self, group: Sequence[PreparedWrite]) -> list[Outcome]:
        self.groups.append([write.bytes for write in group])
        await self.free.acquire()
        if self.failure is not None:
            raise self.failure
        return [WriteReply(len(self.groups), 0)] * len(group)


def write(bytes: int = 1, rows: bool = True, ends_s: float = 1e9, collection: int = 1) -> PreparedWrite:
    return PreparedWrite(CollectionId(collection), {}, bytes, rows, ends_s)


@pytest.fixture
def commit() -> HeldCommit:
    return HeldCommit()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def groups(commit: HeldCommit, clock: FakeClock) -> Groups:
    return Groups(commit, clock, queue_bytes_max=100, group_bytes_max=10)


async def begin(groups: Groups, commit: HeldCommit) -> asyncio.Future[WriteReply]:
    """One commit in flight."""
    first = groups.submit(write())
    await until(lambda: bool(commit.groups))
    return first


async def test_a_lone_write_waits_for_nobody(groups: Groups, commit: HeldCommit) -> None:
    """A request with nothing in flight is committed at once, alone."""
    commit.free.release()

    assert (await groups.submit(write(3))).version == 1
    assert commit.groups == [[3]]


async def test_groups_hold_what_came_meanwhile_up_to_the_limit(groups: Groups, commit: HeldCommit) -> None:
    """What arrives during a commit forms the next ones in order, each within the limit, a larger request alone."""
    answers = [await begin(groups, commit)]
    answers += [groups.submit(write(bytes)) for bytes in (4, 5, 2, 30, 1)]

    for _ in range(5):
        commit.free.release()

    assert [(await answer).version for answer in answers] == [1, 2, 2, 3, 4, 5]
    assert commit.groups == [[1], [4, 5], [2], [30], [1]]


async def test_collections_do_not_wait_for_each_other(groups: Groups, commit: HeldCommit) -> None:
    """Commits of two collections are in flight at the same time."""
    answers = [groups.submit(write(collection=1)), groups.submit(write(collection=2))]
    await until(lambda: len(commit.groups) == 2)

    commit.free.release()
    commit.free.release()
    await asyncio.gather(*answers)


async def test_a_full_queue_refuses_rows_but_never_deletes(groups: Groups, commit: HeldCommit) -> None:
    """Above the queue's limit rows get RATE_LIMIT with value and limit; deletes are queued."""
    answers = [await begin(groups, commit), groups.submit(write(100))]

    with pytest.raises(MishardsError, match=r"101 bytes would wait .* the limit is 100 bytes") as refused:
        groups.submit(write(1))
    answers.append(groups.submit(write(1, rows=False)))

    assert refused.value.kind is Kind.RATE_LIMIT
    for _ in answers:
        commit.free.release()
    await asyncio.gather(*answers)
    commit.free.release()
    assert (await groups.submit(write(100))).version == 4  # the room is free again


async def test_what_is_late_is_not_committed(groups: Groups, commit: HeldCommit, clock: FakeClock) -> None:
    """A request whose deadline passed while it waited is refused with DEADLINE and left out."""
    first = await begin(groups, commit)
    late = groups.submit(write(2, ends_s=clock.monotonic_s() + 1))
    timely = groups.submit(write(3))

    clock.advance(1)
    commit.free.release()
    commit.free.release()

    await asyncio.gather(first, timely)
    with pytest.raises(MishardsError) as refused:
        await late
    assert refused.value.kind is Kind.DEADLINE
    assert commit.groups == [[1], [3]]


async def test_a_failed_commit_fails_its_group_only(groups: Groups, commit: HeldCommit) -> None:
    """Every request of a failed commit gets the error; the next group is committed."""
    first = await begin(groups, commit)
    commit.failure = MishardsError(Kind.NOT_OWNER, "gone", "w2")
    commit.free.release()

    with pytest.raises(MishardsError) as failed:
        await first
    commit.failure = None
    commit.free.release()

    assert (failed.value.kind, failed.value.detail) == (Kind.NOT_OWNER, "w2")
    assert (await groups.submit(write())).version == 2


async def test_settling_waits_for_what_was_there(groups: Groups, commit: HeldCommit) -> None:
    """Settling ends when all that was submitted before is answered, failed or not."""
    first = await begin(groups, commit)
    second = groups.submit(write())

    settled = asyncio.create_task(groups.settle(CollectionId(1)))
    await asyncio.sleep(0)
    assert not settled.done()
    commit.free.release()
    commit.free.release()
    await settled

    assert first.done()
    assert second.done()
    await groups.settle(CollectionId(1))


async def test_giving_up_settling_changes_nothing(groups: Groups, commit: HeldCommit) -> None:
    """When the caller who settles goes away, the writes he waited for are answered and later ones are committed."""
    answers = [await begin(groups, commit), groups.submit(write())]
    settling = asyncio.create_task(groups.settle(CollectionId(1)))
    await asyncio.sleep(0)

    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)

    for _ in range(3):
        commit.free.release()
    assert [(await answer).version for answer in answers] == [1, 2]
    assert (await groups.submit(write())).version == 3


async def test_stopping_finishes_what_is_in_flight(groups: Groups, commit: HeldCommit) -> None:
    """A stop waits for the commit in flight and refuses what waits and what comes."""
    first = await begin(groups, commit)
    waiting = groups.submit(write())
    stopping = asyncio.create_task(groups.stop())
    await asyncio.sleep(0)

    with pytest.raises(MishardsError, match="stopping"):
        groups.submit(write())
    commit.free.release()
    await stopping

    assert (await first).version == 1
    with pytest.raises(MishardsError, match="stopping"):
        await waiting
