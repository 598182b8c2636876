"""What is defined, and when it changed: the truth about names, collections and their partitions.

As commits, definitions are looked at when they happen. What a request may find depends on how new it must be: all that
was true at any time from a moment that its level decides until it was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mishards.errors import Kind
from mishards.model import DEFAULT_PARTITION, Collection, CollectionId
from mishards.wire import definitions as d

ALWAYS_S = float("-inf")
NEVER_S = float("inf")


class State(NamedTuple):
    """A collection as it was for a while."""

    since_s: float
    collection: Collection

    def readable(self, partition: str) -> frozenset[int] | None:
        """The partitions that a read of `partition`, or of all (""), looks at; None: it is refused."""
        released = self.collection.released_partitions
        ids = frozenset(each.id for each in self.collection.partitions if partition in ("", each.name))
        if not self.collection.loaded or (partition and (not ids or ids & set(released))):
            return None
        return ids - set(released)


@dataclass(slots=True)
class Defined:
    """One collection from its creation on."""

    states: list[State] = field(default_factory=list)
    dropped_s: float = NEVER_S

    @property
    def now(self) -> Collection:
        return self.states[-1].collection

    def during(self, since_s: float, until_s: float) -> list[State]:
        """As it was at any time of that span, the newest first."""
        ends_s = [*(state.since_s for state in self.states[1:]), self.dropped_s]
        found = [
            state
            for state, end_s in zip(self.states, ends_s, strict=True)
            if state.since_s <= until_s and end_s >= since_s
        ]
        return found[::-1]


def told(collection: Collection) -> str:
    """What of it changes, in short."""
    partitions = (
        f"{each.name}{' (released)' * (each.id in collection.released_partitions)}" for each in collection.partitions
    )
    state = "loaded" if collection.loaded else "not loaded"
    return f"{collection.name} ({collection.id}), {state}: {', '.join(partitions)}"


class Definitions:
    """Of all collections; names are never given to another one while it is there, and never changed."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.defined: dict[CollectionId, Defined] = {}
        self._now_s = now_s

    def of(self, name: str) -> Collection | None:
        """What has the name now."""
        return next((each.now for _, each in self.named(name) if each.dropped_s == NEVER_S), None)

    def named(self, name: str) -> Iterator[tuple[CollectionId, Defined]]:
        """All that ever had the name, the newest first."""
        return ((id, each) for id, each in reversed(self.defined.items()) if each.now.name == name)

    def partitions(self, id: CollectionId) -> frozenset[int]:
        """Those that are defined now."""
        return frozenset(partition.id for partition in self.defined[id].now.partitions)

    def readable(self, name: str, partition: str) -> frozenset[int]:
        """What a read of a collection that is there looks at now."""
        states = next(each.states for _, each in self.named(name))
        return states[-1].readable(partition) or frozenset()

    def changed_since(self, name: str, time_s: float) -> bool:
        return any(
            each.states[-1].since_s >= time_s or time_s <= each.dropped_s < NEVER_S for _, each in self.named(name)
        )

    # ----------------------------------------------------------------------------------------------------- what happens

    def on_create(self, collection: Collection) -> None:
        self.defined[collection.id] = Defined([State(self._now_s(), collection)])

    def on_replace(self, pairs: Sequence[tuple[Collection, Collection]]) -> None:
        for _, new in pairs:
            self.defined[new.id].states.append(State(self._now_s(), new))

    def on_drop(self, id: CollectionId) -> bool:
        """Whether it was there."""
        dropped = self.defined[id].dropped_s == NEVER_S
        if dropped:
            self.defined[id].dropped_s = self._now_s()
        return dropped

    # ----------------------------------------------------------------------------------------------------- what may be

    def excuse(self, kind: Kind, name: str, called: str, partition: str, since_s: float) -> bool:
        """Whether a refusal of that kind was true at some time since then, of the collection that was so called."""
        until_s = self._now_s()
        if self._was_absent(name, since_s, until_s):
            return True
        states = [state for _, each in self.named(name) for state in each.during(since_s, until_s)]
        match kind:
            case Kind.COLLECTION_NOT_FOUND:
                return any(not state.collection.is_called(called) for state in states)
            case Kind.COLLECTION_NOT_LOADED:
                return any(not state.collection.loaded for state in states)
            case Kind.INDEX_NOT_FOUND:
                return any(not state.collection.indexes for state in states)
            case Kind.PARTITION_NOT_FOUND:
                return any(state.collection.partition(partition) is None for state in states)
            case Kind.PARTITION_NOT_LOADED:
                return any(state.readable(partition) is None for state in states)
            case _:
                return False

    def _was_absent(self, name: str, since_s: float, until_s: float) -> bool:
        there_s = since_s
        for start_s, end_s in sorted((each.states[0].since_s, each.dropped_s) for _, each in self.named(name)):
            if start_s > there_s:
                break
            there_s = max(there_s, end_s)
        return there_s <= until_s


@dataclass(frozen=True, slots=True)
class Template:
    """What a collection is to be, whenever it is whole."""

    creation: d.CreateCollection
    index: d.CreateIndex
    partitions: tuple[str, ...]  # besides the first
    replicas: int
    alias: str = ""  # another name, which comes and goes

    @property
    def names(self) -> tuple[str, ...]:
        """By which clients may call it."""
        return (self.creation.collection, self.alias) if self.alias else (self.creation.collection,)

    @property
    def all_partitions(self) -> tuple[str, ...]:
        return (DEFAULT_PARTITION, *self.partitions)

    @property
    def generated(self) -> bool:
        """The service makes the primary keys."""
        return self.creation.schema.primary.auto_id

    def missing(self, collection: Collection | None) -> d.AnyDefinition | None:
        """What comes next to make it whole; None: it is."""
        named = {"database": self.creation.database, "collection": self.creation.collection}
        if collection is None:
            return self.creation
        if not collection.indexes:
            return self.index
        for partition in self.partitions:
            if collection.partition(partition) is None:
                return d.CreatePartition(**named, partition=partition)
        if self.alias and self.alias not in collection.aliases:
            return d.CreateAlias(**named, alias=self.alias)
        if not collection.loaded or collection.released_partitions:
            return d.LoadCollection(**named, replicas=self.replicas)
        return None

    def broken(
        self, collection: Collection, choose: Callable[[Sequence[d.AnyDefinition]], d.AnyDefinition]
    ) -> d.AnyDefinition:
        """What takes something away from it."""
        named = {"database": self.creation.database, "collection": self.creation.collection}
        ways: list[d.AnyDefinition] = [d.ReleaseCollection(**named)]
        if self.alias in collection.aliases:  # a collection with an alias cannot be dropped
            ways += [d.DropAlias(database=self.creation.database, alias=self.alias)] * 2
        else:
            ways += [d.DropCollection(**named)] * (2 if self.alias else 1)
        for name in self.partitions:
            partition = collection.partition(name)
            if partition is None:
                continue
            if collection.loaded and partition.id not in collection.released_partitions:
                ways.append(d.ReleasePartitions(**named, partitions=(name,)))
            else:
                ways += [d.DropPartition(**named, partition=name)] * 3  # what was released for it
        return choose(ways)
