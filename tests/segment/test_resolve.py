"""The order inside a commit, against a commit applied one write at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_rows import NAME, PK, batch

from mishards.segment.fresh import Tombstones, tombstones_of
from mishards.segment.keys import ascending
from mishards.segment.resolve import Resolved, WriteOp, resolve

KEY = st.integers(0, 4)
PARTITION = st.integers(1, 2)
REACH = st.tuples(KEY, st.sampled_from([0, 0, 3]), st.integers(0, 2))  # key, below, partition


def deletes(reaches: Sequence[tuple[int, int, int]]) -> Tombstones:
    keys, below, partitions = zip(*reaches, strict=True) if reaches else ((), (), ())
    return Tombstones(pa.array(keys, pa.int64()), np.array(below, np.int64), np.array(partitions, np.int64))


def one_at_a_time(ops: Sequence[WriteOp]) -> tuple[dict[int, tuple[int, str]], set[tuple[int, int, int]]]:
    """key -> (partition, name) and the tombstones, by the definition."""
    rows: dict[int, tuple[int, str]] = {}
    stones = set()
    for op in ops:
        for key, below, partition in reaches_of(op.deletes):
            stones.add((key, below, partition))
            if below == 0 and key in rows and partition in (0, rows[key][0]):
                del rows[key]
        if op.rows is not None:
            for key, name in zip(op.rows.column(PK).to_pylist(), op.rows.column(NAME).to_pylist(), strict=True):
                rows[key] = (op.partition_id, name)
                if op.replaces:
                    stones.add((key, 0, 0))
    return rows, stones


def reaches_of(stones: Tombstones | None) -> list[tuple[int, int, int]]:
    if stones is None:
        return []
    return list(zip(stones.keys.to_pylist(), stones.below.tolist(), stones.partitions.tolist(), strict=True))


def rows_of(resolved: Resolved) -> dict[int, tuple[int, str]]:
    """key -> (partition, name), after checking that keys are sorted and that none appears twice."""
    rows = {}
    for partition, part in resolved.rows.items():
        keys = part.column(PK).to_pylist()
        assert keys == sorted(keys)
        assert keys
        for key, name in zip(keys, part.column(NAME).to_pylist(), strict=True):
            assert key not in rows
            rows[key] = (partition, name)
    return rows


@st.composite
def commits(draw: st.DrawFn) -> list[WriteOp]:
    ops = []
    for number in range(draw(st.integers(0, 6))):
        keys = draw(st.lists(KEY, max_size=4))
        rows = batch(keys, [f"{number}.{i}" for i in range(len(keys))]) if draw(st.booleans()) else None
        stones = deletes(draw(st.lists(REACH, max_size=3))) if draw(st.booleans()) else None
        ops.append(WriteOp(rows, draw(PARTITION), draw(st.booleans()), stones))
    return ops


@given(commits())
def test_a_commit_equals_its_writes_one_at_a_time(ops: list[WriteOp]) -> None:
    """What is committed is what applying the writes in their order leaves, and every tombstone once."""
    rows, stones = one_at_a_time(ops)

    resolved = resolve(ops, PK)

    assert rows_of(resolved) == rows
    reaches = reaches_of(resolved.tombstones)
    assert set(reaches) == stones
    assert len(reaches) == len(stones)


def test_string_keys_are_resolved_alike() -> None:
    """VARCHAR keys are sorted by their bytes and the last row of each wins."""
    first = WriteOp(batch(["b", "é", "a"], ["1", "2", "3"]), 1, True)
    second = WriteOp(batch(["b"], ["4"]), 2, True, tombstones_of(pa.array(["a"])))

    resolved = resolve([first, second], PK)

    assert {p: part.column(NAME).to_pylist() for p, part in resolved.rows.items()} == {1: ["2"], 2: ["4"]}
    assert sorted(resolved.tombstones.keys.to_pylist()) == ["a", "b", "é"]


@pytest.mark.parametrize("count", [1, 50])
def test_a_large_commit_is_resolved_in_a_fraction_of_a_second(count: int) -> None:
    """100,000 rows, in one write or in fifty, take well under a second."""
    keys = np.random.default_rng(0).permutation(100_000)
    ops = [WriteOp(batch(part, [None] * len(part)), 1, True) for part in np.array_split(keys, count)]

    started = time.perf_counter()
    resolved = resolve(ops, PK)

    assert resolved.rows[1].num_rows == len(resolved.tombstones) == 100_000
    assert time.perf_counter() - started < 1


@given(commits(), st.sets(st.integers(0, 5)))
def test_rows_that_are_stored_stay_apart_if_all_of_them_survive(ops: list[WriteOp], wanted: set[int]) -> None:
    """A stored write is left whole, or its survivors are among the other rows: together they are the same rows."""
    stored = {n for n in wanted if n < len(ops) and ops[n].rows is not None and ascending(ops[n].rows.column(PK))}

    resolved = resolve(ops, PK, stored)

    assert set(resolved.whole) <= stored
    rows = rows_of(resolved)
    for number in resolved.whole:
        part = rows_of(Resolved({ops[number].partition_id: ops[number].rows}, None))
        assert part
        assert not rows.keys() & part.keys()
        rows |= part
    assert rows == one_at_a_time(ops)[0]
