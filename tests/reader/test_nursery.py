"""Interim indexes on a reader: made for what searches found without an index, used until the real one is there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import held as h
import numpy as np
import pyarrow as pa
import pytest

from mishards.index.exact import exact_search
from mishards.ports import Matrix, VectorIndex
from mishards.reader.evaluate import Condition, Question, search
from mishards.reader.interims import Interims
from mishards.reader.joints import (
    FLOATS_MAX,
    FLOATS_MIN,
    JOINED_FLOATS_MAX,
    LAG_ROWS_MIN,
    NEW_ROWS_MAX,
    Joints,
    Plan,
    together,
)
from mishards.reader.nursery import Nursery
from mishards.reader.source import Mask, MaskCache, Source

KEY = FIELD, METRIC = 7, "L2"
INDEX = 9
ROWS, DIM = 9000, 64
VECTORS: Matrix = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


class Rows:
    """A segment, or a block that grows: the vectors from `start` on."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.interims = Interims()

    def source(self, rows: int = 0, index: VectorIndex | None = None, alive: Mask | None = None) -> Source:
        """The first rows, or all, as searches see them."""
        mine = VECTORS[self.start : self.start + rows if rows else self.stop]
        numbers = np.arange(self.start, self.start + len(mine))
        return Source(
            rows=len(mine),
            planned=len(mine),
            alive=alive,
            place_of=lambda positions: (np.full(len(positions), 1, np.int64), positions),
            keys=pa.array(numbers),
            table=pa.table({str(h.NUMBER): numbers}),
            vectors=lambda field_id: mine,
            unit_vectors=lambda field_id: mine,
            index=lambda index_id: index,
            ordered=False,
            find=lambda keys: np.zeros(0, np.int64),
            masks=MaskCache(),
            interims=self.interims,
        )


def question(queries: Matrix, text: str = "") -> Question:
    condition = Condition.of(text, {}, h.schema())
    return Question(FIELD, INDEX, queries, 3, METRIC, {}, condition, None, None, False)


def planned(joints: Joints, sources: Sequence[Source]) -> Plan:
    return joints.plan(sources, KEY, INDEX, DIM)


async def tended(joints: Joints, sources: Sequence[Source]) -> Plan:
    """The plan after what follows a search of the sources."""
    nursery = Nursery()
    nursery.tend(joints, KEY, sources, planned(joints, sources))
    async with asyncio.timeout(30):
        await nursery.idle()
    await nursery.stop()
    return planned(joints, sources)


THREE = (Rows(0, 2000), Rows(2000, 8000), Rows(8000, ROWS))


async def test_a_search_without_an_index_brings_one_for_all_sources() -> None:
    """Later searches use it: same scores, near enough the same rows, of all of them."""
    sources = [rows.source() for rows in THREE]
    plan = await tended(Joints(), sources)

    assert plan.wanted == ()
    ((members, _),) = plan.groups
    assert sorted(members) == [0, 1, 2]
    hits, counts = search(sources, question(VECTORS[::100]), plan.groups)
    truth_scores, truth = exact_search(VECTORS, VECTORS[::100], 3, METRIC)
    assert counts.tolist() == [3] * 90
    found = hits.keys.reshape(90, 3)
    np.testing.assert_array_equal(found[:, 0], truth[:, 0])  # themselves
    assert (found == truth).mean() > 0.8  # of vectors without any structure
    same = found == truth
    np.testing.assert_array_equal(hits.scores.reshape(90, 3)[same], truth_scores[same])


@pytest.mark.parametrize("text", ["", "number < 50", "number % 2 == 0"])
async def test_only_rows_that_live_and_pass_are_found(text: str) -> None:
    """Whatever the interim index proposes; where it proposes too little, the search is exact."""
    alive = [np.random.default_rng(n).random(rows.stop - rows.start) < 0.7 for n, rows in enumerate(THREE)]
    sources = [rows.source(alive=mask) for rows, mask in zip(THREE, alive, strict=True)]
    plan = await tended(Joints(), sources)
    asked = question(VECTORS[:20], text)

    hits, counts = search(sources, asked, plan.groups)

    exact, exact_counts = search(sources, asked)
    assert counts.tolist() == exact_counts.tolist()
    assert np.concatenate(alive)[hits.keys].all()
    assert (hits.keys == exact.keys).mean() > 0.8


async def test_it_is_used_while_sources_come_and_grow() -> None:
    """New rows and small new sources are searched row by row, until there are so many that another one is made."""
    joints = Joints()
    block, fixed, new = Rows(0, 4000), Rows(4000, 8000), Rows(8000, ROWS)
    await tended(joints, [block.source(3000), fixed.source()])

    grown = [block.source(3000 + LAG_ROWS_MIN - 11), fixed.source(), new.source(10)]
    plan = planned(joints, grown)
    assert plan.wanted == ()
    assert [sorted(members) for members, _ in plan.groups] == [[0, 1, 2]]
    queries = np.concatenate([VECTORS[3200:3220], VECTORS[8000:8010]])
    hits, _ = search(grown, question(queries), plan.groups)
    assert hits.keys.reshape(30, 3)[:, 0].tolist() == [*range(3200, 3220), *range(8000, 8010)]

    more = [block.source(3000 + LAG_ROWS_MIN), fixed.source(), new.source()]
    assert planned(joints, more).wanted != ()
    assert (await tended(joints, more)).wanted == ()


async def test_a_large_new_source_is_searched_exactly_at_first() -> None:
    """By matrix products, until it is part of an interim index."""
    joints = Joints()
    old, new = Rows(0, 5000), Rows(5000, 5000 + NEW_ROWS_MAX + 1)
    await tended(joints, [old.source()])

    plan = planned(joints, [old.source(), new.source()])

    assert [members for members, _ in plan.groups] == [(0,)]
    assert [sorted(members) for members in plan.wanted] == [[0, 1]]


async def test_rows_of_an_older_version_have_no_codes_of_newer_ones() -> None:
    """A source of fewer rows sees none of the others."""
    joints = Joints()
    block, fixed = Rows(0, 1000), Rows(1000, ROWS)
    await tended(joints, [block.source(), fixed.source()])

    sources = [block.source(900), fixed.source()]
    plan = planned(joints, sources)

    hits, _ = search(sources, question(VECTORS[890:1000]), plan.groups)
    assert not np.isin(hits.keys, np.arange(900, 1000)).any()


async def test_another_is_made_when_most_of_its_sources_are_not_named() -> None:
    """One that half is of others is used meanwhile, one of fewer is not."""
    joints = Joints()
    first, second, third = Rows(0, 5000), Rows(5000, 8000), Rows(8000, ROWS)
    await tended(joints, [first.source(), second.source(), third.source()])

    plan = planned(joints, [first.source()])
    assert ([members for members, _ in plan.groups], plan.wanted) == ([(0,)], ((0,),))

    alone = [Rows(0, 1).source(), second.source(), third.source()]  # 4,000 of 9,000
    assert planned(joints, alone).groups == ()
    assert (await tended(joints, alone)).wanted == ()


async def test_what_is_gone_keeps_nothing() -> None:
    """The next one replaces those of sources that nobody holds any more."""
    joints = Joints()
    gone, kept = Rows(0, 4200), Rows(4200, ROWS)
    await tended(joints, [gone.source()])
    del gone
    joints.forget_plans()
    gc.collect()

    await tended(joints, [kept.source()])

    assert joints.bytes == 4800 * DIM // 4


async def test_rows_that_nobody_asks_for_are_left_out() -> None:
    """A block keeps rows that have gone into a segment; nothing is made of sources without any row asked for."""
    joints = Joints()
    block, segment = Rows(0, 6000), Rows(6000, ROWS)
    asked = np.arange(6000) >= 3000

    sources = [block.source(alive=asked), segment.source(), Rows(0, 100).source(alive=np.zeros(100, np.bool_))]
    plan = await tended(joints, sources)

    ((members, covering),) = plan.groups
    assert (sorted(members), covering.coded, covering.late) == ([0, 1], 6000, 0)
    assert joints.bytes == 6000 * (DIM // 4 + 4 * DIM)
    hits, _ = search(sources, question(VECTORS[:9000:100]), plan.groups)
    assert (hits.keys >= 3000).all()
    assert hits.keys.reshape(90, 3)[30:, 0].tolist() == [*range(3000, 9000, 100)]


async def test_nothing_is_kept_of_sources_that_are_gone() -> None:
    """The next plan lets go of it."""
    joints = Joints()
    await tended(joints, [Rows(0, 5000).source()])
    joints.forget_plans()
    gc.collect()

    planned(joints, [Rows(0, 100).source()])

    assert joints.bytes == 0


async def test_what_has_an_index_gets_no_other() -> None:
    """The builder's index is enough."""
    real: VectorIndex = object()  # type: ignore[assignment]

    assert await tended(Joints(), [Rows(0, ROWS).source(index=real)]) == Plan()


def test_which_sources_are_searched_together() -> None:
    """Few rows are scanned as they are, large sources have their own, the largest wait for the builder's index."""
    assert together([(0, FLOATS_MIN)]) == []
    assert together([(0, FLOATS_MIN), (1, 1)]) == [(1, 0)]
    large = JOINED_FLOATS_MAX + 1
    assert together([(0, large), (1, FLOATS_MIN), (2, 1), (3, FLOATS_MAX + 1)]) == [(0,), (2, 1)]
    half = JOINED_FLOATS_MAX // 2
    assert together([(0, half), (1, half), (2, half)]) == [(0, 1), (2,)]
