"""What the live nodes still need, as the collector learns it (P12)."""

from __future__ import annotations

from typing import Any

import pytest

from mishards.builder.floors import MemberFloors
from mishards.errors import Kind, MishardsError
from mishards.model import Member, NodeId
from mishards.wire.messages import NodeStatus, Nothing


class Cluster:
    """Its members and what each answers; both faces that are asked."""

    def __init__(self, **floors: dict[int, int] | None) -> None:
        self._floors = floors

    def members(self) -> list[Member]:
        return [Member(id=NodeId(name), roles=("proxy",), address=f"tcp://{name}:1") for name in self._floors]

    def node(self, member: Member) -> Any:
        floors = self._floors[member.id]

        class Node:
            async def status(self, request: Nothing) -> NodeStatus:
                if floors is None:
                    raise MishardsError(Kind.PEER_LOST, "gone")
                return NodeStatus(member.id, ("proxy",), "ready", 1.0, 1, 0, {}, {}, floors)

        return Node()


async def floors_of(**floors: dict[int, int] | None) -> dict[int, int]:
    cluster: Any = Cluster(**floors)
    return dict(await MemberFloors(cluster, cluster)())


async def test_the_oldest_counts() -> None:
    """Of each collection the oldest layout that any node reports; a node that does not know it is no concern."""
    assert await floors_of(a={1: 5, 2: 9}, b={1: 7}, c={}) == {1: 5, 2: 9}


async def test_a_node_that_does_not_answer() -> None:
    """Nothing is known of what a silent member needs, and it is named."""
    with pytest.raises(MishardsError, match="node b does not tell which layouts it uses") as raised:
        await floors_of(a={1: 5}, b=None)
    assert raised.value.kind is Kind.UNAVAILABLE
