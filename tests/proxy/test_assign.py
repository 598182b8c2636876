"""Who answers which file: each exactly once, ready replicas first (I13, P17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, File, FileId, FileKind, NodeId
from mishards.proxy.assign import Choices, Part
from mishards.wire.placement import file_key

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def segment(number: int, rows: int = 10) -> File:
    return File(
        id=FileId(number),
        segment_id=FileId(number),
        collection_id=CollectionId(1),
        shard=0,
        kind=FileKind.SEGMENT,
        rows=rows,
        bytes=rows,
    )


def fresh(number: int) -> File:
    return File(id=FileId(number), collection_id=CollectionId(1), shard=0, kind=FileKind.ROWS, rows=1, bytes=1)


def assign(files: Any, placed: Any, usable: Any, ready: Any, load: Any) -> dict[NodeId, list[File]]:
    """Files by node."""
    return by_node(Choices(files, placed, usable, ready).parts(load))


def by_node(parts: Sequence[Part]) -> dict[NodeId, list[File]]:
    assert all(part.ids == tuple(file.id for file in part.files) for part in parts)
    return {part.node: list(part.files) for part in parts}


def test_every_file_goes_to_exactly_one_node() -> None:
    """The parts partition the plan's files."""
    files = [segment(n) for n in range(20)] + [fresh(n) for n in range(20, 30)]
    placed = {file_key(file): (A, B) for file in files}

    parts = assign(files, placed, [A, B, C], lambda node, file: True, lambda node: 0)

    assert sorted(file.id for part in parts.values() for file in part) == list(range(30))
    assert set(parts) == {A, B}


def test_a_ready_replica_is_preferred_to_a_placed_one_that_must_load() -> None:
    """Readiness beats placement, so that a new owner is not asked before it has loaded."""
    file = segment(1)

    parts = assign([file], {file_key(file): (A,)}, [A, B], lambda node, file: node == B, lambda node: 0)

    assert parts == {B: [file]}


def test_without_any_ready_replica_a_placed_one_loads() -> None:
    """A cold file goes to its owner."""
    file = segment(1)

    assert assign([file], {file_key(file): (B, A)}, [A, B], lambda *_: False, lambda node: 0) == {B: [file]}


def test_the_less_loaded_replica_is_taken() -> None:
    """Requests in flight decide among ready replicas."""
    file = segment(1)

    parts = assign([file], {file_key(file): (A, B)}, [A, B], lambda *_: True, {A: 3, B: 1}.__getitem__)

    assert parts == {B: [file]}


def test_fresh_rows_of_a_shard_stay_together_at_their_owner() -> None:
    """The tail's first placed and usable owner answers all of it."""
    files = [fresh(n) for n in range(5)]
    placed = {file_key(files[0]): (C, B)}

    assert assign(files, placed, [A, B], lambda *_: False, lambda node: 0) == {B: files}


def test_without_readers_the_error_says_so() -> None:
    """No reader is a clear, retryable error."""
    with pytest.raises(MishardsError, match="no reader is available") as caught:
        assign([segment(1)], {}, [], lambda *_: True, lambda node: 0)
    assert caught.value.kind is Kind.UNAVAILABLE


def test_loads_decide_anew_at_every_search() -> None:
    """What is kept is who may answer, not who does: of two ready replicas the one with less to do."""
    file = segment(1)
    loads = {A: 0, B: 0}
    choices = Choices([file], {file_key(file): (A, B)}, [A, B], lambda *_: True)

    taken = []
    for loads[A] in (0, 1, 2, 0):
        loads[B] = 1
        taken.append(list(by_node(choices.parts(loads.__getitem__))))

    assert taken == [[A], [A], [B], [A]]


def test_where_there_is_no_choice_nothing_is_done_again() -> None:
    """With one candidate a file, the parts are those of the search before, whatever the loads."""
    files = [segment(n) for n in range(6)]
    placed = {file_key(file): ((A, B)[file.id % 2],) for file in files}
    choices = Choices(files, placed, [A, B], lambda node, file: node in placed[file_key(file)])

    assert choices.parts(lambda _: 0) is choices.parts({A: 5, B: 1}.__getitem__)


def test_all_readers_equally_busy_is_as_good_as_all_idle() -> None:
    """Searches that touch every reader do not make the next one spread its files anew."""
    files = [segment(n) for n in range(6)]
    choices = Choices(files, {file_key(file): (A, B) for file in files}, [A, B], lambda *_: True)

    assert choices.parts(lambda _: 0) is choices.parts(lambda _: 7)


@given(st.data())
def test_kept_choices_are_those_of_the_definition(data: st.DataObject) -> None:
    """Whatever is placed, ready and loaded: each file is at one node, which is of the best kind that there is, the
    largest files first at the least loaded (P16, P17, I13)."""
    nodes = [A, B, C]
    some = st.lists(st.sampled_from(nodes), unique=True)
    files = data.draw(st.lists(st.builds(segment, st.integers(1, 9), st.integers(1, 5)), unique_by=lambda f: f.id))
    placed = {file_key(file): tuple(data.draw(some)) for file in files}
    ready = {file.id: set(data.draw(some)) for file in files}
    usable = data.draw(some.filter(bool))
    choices = Choices(files, placed, usable, lambda node, file: node in ready[file.id])

    for _ in range(3):
        loads = {node: data.draw(st.integers(0, 2)) for node in nodes}
        rows = dict.fromkeys(nodes, 0)
        expected: dict[NodeId, set[int]] = {}
        for file in sorted(files, key=lambda file: file.rows, reverse=True):
            here = [node for node in placed[file_key(file)] if node in usable]
            kinds = [n for n in here if n in ready[file.id]], [n for n in usable if n in ready[file.id]], here, usable
            node = min(next(kind for kind in kinds if kind), key=lambda n: (loads[n], rows[n]))
            expected.setdefault(node, set()).add(file.id)
            rows[node] += file.rows

        parts = choices.parts(loads.__getitem__)

        assert {part.node: set(part.ids) for part in parts} == expected
        for part in parts:
            spares = [n for n in usable if n != part.node and all(n in ready[id] for id in part.ids)]
            assert part.spare == next(iter(spares), None)
