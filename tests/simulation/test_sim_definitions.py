"""What the simulation's checker takes for true of names, as definitions change."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from mishards.errors import Kind
from mishards.model import Collection, Partition, PartitionId
from mishards.testing.metadata_records import a_collection
from mishards.testing.sim.definitions import Definitions
from mishards.testing.sim.drawn import drawn_template
from mishards.wire.definitions import DropCollection

NORTH, SOUTH = (Partition(PartitionId(id), name, 1) for id, name in ((1, "north"), (2, "south")))


class Story:
    """`books`: there from 1 with one partition, loaded at 2, a second partition at 3, dropped at 5, anew from 7."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.definitions = Definitions(lambda: self.now_s)
        first = a_collection(1, partitions=(NORTH,))
        loaded = replace(first, loaded=True)
        more = replace(loaded, partitions=(NORTH, SOUTH), released_partitions=(SOUTH.id,))
        self.at(1, self.definitions.on_create, first)
        self.at(2, self.definitions.on_replace, [(first, loaded)])
        self.at(3, self.definitions.on_replace, [(loaded, more)])
        self.at(5, self.definitions.on_drop, first.id)
        self.at(7, self.definitions.on_create, a_collection(2, partitions=(NORTH,), loaded=True))
        self.now_s = 9.0

    def at(self, time_s: float, happens: Callable[[Any], object], subject: Any) -> None:
        self.now_s = time_s
        happens(subject)

    def excuses(self, kind: Kind, since_s: float, until_s: float, partition: str = "", called: str = "books") -> bool:
        self.now_s = until_s
        return self.definitions.excuse(kind, "books", called, partition, since_s)


@pytest.mark.parametrize(
    ("kind", "since_s", "until_s", "excused"),
    [
        (Kind.COLLECTION_NOT_FOUND, 0.5, 4, True),
        (Kind.COLLECTION_NOT_FOUND, 1.5, 4, False),
        (Kind.COLLECTION_NOT_FOUND, 4, 6, True),
        (Kind.COLLECTION_NOT_FOUND, 8, 9, False),
        (Kind.COLLECTION_NOT_LOADED, 1.5, 4, True),
        (Kind.COLLECTION_NOT_LOADED, 2.5, 4, False),
        (Kind.PARTITION_NOT_FOUND, 2.5, 4, True),
        (Kind.PARTITION_NOT_FOUND, 3.5, 4, False),
        (Kind.PARTITION_NOT_LOADED, 3.5, 4, True),
        (Kind.INTERNAL, 1.5, 4, False),
    ],
)
def test_a_refusal_is_excused_by_what_was_true_meanwhile(
    kind: Kind, since_s: float, until_s: float, excused: bool
) -> None:
    """At any moment between the question and the answer, and not before."""
    assert Story().excuses(kind, since_s, until_s, "south") is excused


def test_a_name_that_it_did_not_have_excuses_that_it_was_not_found() -> None:
    """Clients may call a collection by an alias, which comes and goes."""
    assert Story().excuses(Kind.COLLECTION_NOT_FOUND, 1.5, 4, called="novels")
    assert not Story().excuses(Kind.INTERNAL, 1.5, 4, called="novels")


def test_a_name_means_one_collection_after_the_other() -> None:
    """Each with its own states; a read looks at what is loaded."""
    definitions = Story().definitions
    (second, _), (first, defined) = definitions.named("books")
    named: Collection | None = definitions.of("books")

    assert (first, second) == (1, 2)
    assert named is not None and named.id == 2
    assert [state.readable("") for state in defined.during(2.5, 4)] == [frozenset({NORTH.id})] * 2
    assert [state.readable("") for state in defined.during(1.5, 1.8)] == [None]
    assert defined.during(6, 8) == []
    assert definitions.changed_since("books", 6) and not definitions.changed_since("books", 8)


def test_a_collection_becomes_whole_step_by_step() -> None:
    """Until nothing is missing; then something can be taken away."""
    template = drawn_template(Random(1), "books", defines=True)
    assert template.missing(None) == template.creation
    bare = a_collection(1, partitions=(Partition(PartitionId(1), "_default", 1),), loaded=True)
    assert template.missing(bare) == template.index
    assert DropCollection(database="default", collection="books") in [
        template.broken(bare, Random(seed).choice) for seed in range(20)
    ]
