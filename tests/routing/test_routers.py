"""The shipped routers pass the conformance suite, found through the plug-in door."""

from mishards import plugins
from mishards.model import Member, NodeId
from mishards.ports import Item, Router
from mishards.routing.hashing import hash_keys
from mishards.routing.rendezvous import fair_shares
from mishards.testing.router_suite import RouterSuite


class TestCapped(RouterSuite):
    router: Router = plugins.load("router", "capped")
    slack = 0.10


class TestRendezvous(RouterSuite):
    router: Router = plugins.load("router", "rendezvous")


class TestRing(RouterSuite):
    router: Router = plugins.load("router", "ring")


def test_placements_are_the_same_in_every_release() -> None:
    """A fixed input has a fixed placement: nodes of two releases agree during an upgrade."""
    members = [Member(id=NodeId(f"reader-{i}"), roles=("reader",), address="") for i in range(4)]
    items = [Item(f"segment:{i}", 10) for i in range(6)]

    def first(name: str) -> str:
        placed = plugins.load("router", name).place(members, items, 2)
        return " ".join("".join(node[-1] for node in placed[item.key]) for item in items)

    assert hash_keys(["segment:1"]).tolist() == [4039668507763816189]
    assert {name: first(name) for name in ("capped", "rendezvous", "ring")} == {
        "capped": "32 10 03 21 10 32",
        "rendezvous": "13 10 31 12 10 31",
        "ring": "23 13 21 30 02 03",
    }


def test_fair_shares_follow_weights_up_to_one_copy_of_everything() -> None:
    """A member is due its weight's share, but never the same item twice; the others take the rest."""
    assert fair_shares([1, 1, 2], 100, 1) == [25, 25, 50]
    assert fair_shares([1, 1, 2], 100, 2) == [50, 50, 100]
    assert fair_shares([1, 1, 8], 100, 2) == [50, 50, 100]
    assert fair_shares([1, 1], 100, 2) == [100, 100]
