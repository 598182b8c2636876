"""What every router must do (I18). Subclass `RouterSuite` in a test module and set `router`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from mishards.model import Member, NodeId
from mishards.ports import Item, Router
from mishards.routing.rendezvous import fair_shares

Placed = Mapping[str, tuple[NodeId, ...]]

MOVED_MAX = 1.25  # x the minimum, from 50 copies a node upwards


class RouterSuite:
    """The contract of `ports.Router`, checked on small random and on realistic seeded placements."""

    router: Router
    slack: float | None = None  # load <= (1 + slack) x fair share + one item; None: not promised

    def test_replicas_are_distinct(self) -> None:
        """Each item gets min(replicas, members) different members, and none without members."""
        for seed in range(200):
            chance = random.Random(seed)
            members, items, replicas = _any_members(chance), _any_items(chance), chance.randint(1, 4)
            placed = self.router.place(members, items, replicas)

            assert placed.keys() == {item.key for item in items}
            for nodes in placed.values():
                assert len(nodes) == len(set(nodes)) == min(replicas, len(members))
                assert set(nodes) <= {member.id for member in members}

    def test_order_is_no_matter(self) -> None:
        """The order in which members and items arrive changes nothing."""
        for seed in range(100):
            chance = random.Random(seed)
            members, items = _any_members(chance), _any_items(chance)
            placed = self.router.place(members, items, 2)
            chance.shuffle(members)
            chance.shuffle(items)

            assert self.router.place(members, items, 2) == placed

    def test_only_ids_and_weights_count(self) -> None:
        """A member that comes back with another address, state and incarnation gets what it had."""
        members, items = _cluster(5), _segments(100)
        restarted = [
            Member(id=m.id, roles=("reader",), address="tcp://elsewhere:1", incarnation="new", beat=9) for m in members
        ]

        assert self.router.place(restarted, items, 2) == self.router.place(members, items, 2)

    def test_another_replica_moves_nothing(self) -> None:
        """The first choices with three replicas are those with two."""
        members, items = _cluster(6), _segments(200)
        two, three = self.router.place(members, items, 2), self.router.place(members, items, 3)

        assert all(three[key][:2] == two[key] for key in two)

    def test_load_is_bounded(self) -> None:
        """No member holds more than (1 + slack) x its fair share plus one item, for one to three replicas."""
        if self.slack is None:
            return
        for count, replicas, weights in ((3, 1, [1.0]), (5, 2, [1.0]), (20, 2, [1.0, 2.0, 4.0]), (10, 3, [1.0])):
            members, items = _cluster(count, weights), _segments(500)
            loads = _loads(self.router.place(members, items, replicas), items)

            shares = fair_shares([m.weight for m in members], sum(item.cost for item in items), replicas)
            largest = max(item.cost for item in items)
            for member, share in zip(members, shares, strict=True):
                assert loads[member.id] <= (1 + self.slack) * share + largest

    def test_load_follows_weight(self) -> None:
        """A member of four times the weight holds about four times as much."""
        members, items = _cluster(10, [1.0, 4.0]), _segments(2000)
        loads = _loads(self.router.place(members, items, 1), items)
        light, heavy = (sum(loads[m.id] for m in members if m.weight == weight) for weight in (1.0, 4.0))

        assert 3.0 < heavy / light < 5.0

    def test_leaving_moves_little(self) -> None:
        """When a member leaves, at most 1.25 x what it held is placed anew."""
        for count, replicas, segments in ((5, 1, 400), (5, 2, 400), (20, 2, 2000)):
            members, items = _cluster(count), _segments(segments)
            before = self.router.place(members, items, replicas)
            after = self.router.place(members[1:], items, replicas)

            assert _moved(before, after, items) <= MOVED_MAX * _loads(before, items)[members[0].id]

    def test_joining_moves_little(self) -> None:
        """When a member joins, at most 1.25 x what it takes is placed anew."""
        for count, replicas, segments in ((5, 1, 400), (5, 2, 400), (20, 2, 2000)):
            members, items = _cluster(count + 1), _segments(segments)
            before = self.router.place(members[:-1], items, replicas)
            after = self.router.place(members, items, replicas)

            assert _moved(before, after, items) <= MOVED_MAX * _loads(after, items)[members[-1].id]


def _member(name: str, weight: float = 1.0) -> Member:
    return Member(id=NodeId(name), roles=("reader",), address=f"tcp://{name}:1", weight=weight)


def _cluster(count: int, weights: Sequence[float] = (1.0,)) -> list[Member]:
    return [_member(f"reader-{i}", weights[i % len(weights)]) for i in range(count)]


def _any_members(chance: random.Random) -> list[Member]:
    return [_member(f"n{i}", chance.choice([0.5, 1.0, 2.0])) for i in chance.sample(range(100), chance.randint(0, 8))]


def _any_items(chance: random.Random) -> list[Item]:
    return [Item(f"s{i}", chance.randint(0, 1000)) for i in chance.sample(range(1000), chance.randint(0, 20))]


def _segments(count: int) -> list[Item]:
    """Items with the sizes of segments: log-normal around 1 MB, the largest about three times the median."""
    chance = random.Random(count)
    return [Item(f"segment:{i}", int(1e6 * chance.lognormvariate(0, 0.4))) for i in range(count)]


def _loads(placed: Placed, items: Sequence[Item]) -> Counter[NodeId]:
    loads: Counter[NodeId] = Counter()
    for item in items:
        loads.update(dict.fromkeys(placed[item.key], item.cost))
    return loads


def _moved(before: Placed, after: Placed, items: Sequence[Item]) -> int:
    return sum(item.cost * len(set(after[item.key]) - set(before[item.key])) for item in items)
