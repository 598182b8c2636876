"""Who answers which file: each exactly once, ready replicas first (I13, P17)."""

from __future__ import annotations

import pytest

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, File, FileId, FileKind, NodeId
from mishards.proxy.assign import assign
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
