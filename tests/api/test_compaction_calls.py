"""Compactions through the door, as pymilvus asks for them and waits."""

from __future__ import annotations

from typing import Any

import pytest
from pymilvus import MilvusException
from served import Served

from mishards.errors import invalid
from mishards.metadata.compactions import Compaction
from mishards.model import CollectionId, File, FileId, FileKind, PartitionId, Version
from mishards.proxy.requests import CompactionState

MERGED = File(
    id=FileId(9),
    collection_id=CollectionId(1),
    shard=0,
    kind=FileKind.SEGMENT,
    rows=10,
    bytes=100,
    partition_id=PartitionId(5),
    segment_id=FileId(7),
    sources=(FileId(2), FileId(3)),
)


class FakeCompactions:
    """One compaction of collection "a", number 77, with one merge that is done and `executing` that are not."""

    def __init__(self) -> None:
        self.executing = 1

    async def start(self, database: str, collection: str) -> int:
        assert collection == "a"
        return 77

    async def state(self, id: int) -> CompactionState:
        if id != 77:
            raise invalid(f"compaction {id} is not known")
        done = Version(0 if self.executing else 9)
        self.executing = max(0, self.executing - 1)
        return CompactionState(Compaction(77, CollectionId(1), Version(3), 4, done), 1 - bool(done), [MERGED])

    async def merged(self, database: str, collection: str) -> list[File]:
        return [MERGED]


@pytest.fixture
def compactions(served: Served) -> FakeCompactions:
    fake: Any = FakeCompactions()
    served.proxy.compactions = fake  # type: ignore[attr-defined]
    return fake  # type: ignore[no-any-return]


async def test_state(served: Served, compactions: FakeCompactions) -> None:
    """The job has a number above 0; it is executing until nothing is left to do."""
    job = await served.run(lambda c: c.compact("a"))
    assert job == 77
    assert await served.run(lambda c: c.get_compaction_state(job)) == "Executing"
    assert await served.run(lambda c: c.get_compaction_state(job)) == "Completed"


async def test_counts(served: Served, compactions: FakeCompactions) -> None:
    """The client is told how many tasks are under way and how many merges are done."""
    state = await served.run(lambda c: c._get_connection().get_compaction_state(77))

    assert (state.in_executing, state.in_timeout, state.completed) == (1, 0, 1)


async def test_plans(served: Served, compactions: FakeCompactions) -> None:
    """Each merge tells its sources and its target, by job or by collection."""
    for plans in (
        await served.run(lambda c: c.get_compaction_plans(77)),
        await served.run(lambda c: c.list_compaction_tasks("a")),
    ):
        (plan,) = plans.plans
        assert (plan.sources, plan.target, plan.targets) == ([2, 3], 7, [7])
        assert (plan.collection_id, plan.partition_id) == (1, 5)


async def test_refusals(served: Served, compactions: FakeCompactions) -> None:
    """An unknown job and a clustering compaction are refused by name."""
    with pytest.raises(MilvusException, match="compaction 5 is not known"):
        await served.run(lambda c: c.get_compaction_state(5))
    with pytest.raises(MilvusException, match="clustering compaction is not supported"):
        await served.run(lambda c: c.compact("a", is_clustering=True))
    with pytest.raises(MilvusException, match="collection not found"):
        await served.run(lambda c: c._get_connection().compact("", collection_id=123))
