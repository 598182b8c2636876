"""Interim indexes on a reader: made for what searches found without an index, used until the real one is there."""

from __future__ import annotations

import asyncio

import held as h
import numpy as np
import pyarrow as pa

from mishards.index.exact import exact_search
from mishards.ports import Matrix, VectorIndex
from mishards.reader.evaluate import Condition, Question, search
from mishards.reader.interims import Interims
from mishards.reader.nursery import Nursery
from mishards.reader.source import MaskCache, Source

FIELD, INDEX = 7, 9
ROWS, DIM = 9000, 64
VECTORS: Matrix = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


def source(rows: int, interims: Interims, index: VectorIndex | None = None) -> Source:
    """The first rows of one growing block, as searches see them."""
    return Source(
        rows=rows,
        planned=rows,
        alive=None,
        place_of=lambda positions: (np.full(len(positions), 1, np.int64), positions),
        keys=pa.array(np.arange(rows)),
        table=pa.table({}),
        vectors=lambda field_id: VECTORS[:rows],
        unit_vectors=lambda field_id: VECTORS[:rows],
        index=lambda index_id: index,
        ordered=False,
        find=lambda keys: np.zeros(0, np.int64),
        masks=MaskCache(),
        interims=interims,
    )


def question(queries: Matrix, index_id: int = INDEX) -> Question:
    condition = Condition.of("", {}, h.schema())
    return Question(FIELD, index_id, queries, 3, "L2", {}, condition, None, None, False)


async def tended(*sources: Source) -> None:
    """What a search through an index does afterwards, and all that follows."""
    nursery = Nursery()
    nursery.tend(sources, FIELD, "L2", INDEX, DIM)
    async with asyncio.timeout(30):
        await nursery.idle()
    await nursery.stop()


async def test_a_search_without_an_index_brings_one() -> None:
    """After it the rows have an interim index, which later searches use: same scores, near enough the same rows."""
    interims = Interims()
    await tended(source(ROWS, interims))

    assert interims.covered(FIELD, "L2", ROWS) == ROWS
    hits, _ = search([source(ROWS, interims)], question(VECTORS[:50]))
    truth = exact_search(VECTORS, VECTORS[:50], 3, "L2")[1]
    found = hits.rows.reshape(50, 3)
    np.testing.assert_array_equal(found[:, 0], truth[:, 0])  # themselves
    assert (found == truth).mean() > 0.8  # of vectors without any structure


async def test_it_grows_with_the_rows() -> None:
    """Rows that come later are covered later, and a source of fewer rows, of an older version, sees none of them."""
    interims = Interims()
    await tended(source(ROWS - 600, interims))
    await tended(source(ROWS, interims))

    assert interims.covered(FIELD, "L2", ROWS) == ROWS
    assert interims.covered(FIELD, "L2", ROWS - 600) == 0
    hits, _ = search([source(ROWS - 600, interims)], question(VECTORS[-10:]))
    assert hits.rows.max() < ROWS - 600


async def test_what_has_an_index_gets_no_other() -> None:
    """The builder's index is enough."""
    interims = Interims()
    real = Interims()
    await tended(source(ROWS, real))
    index = real.over(FIELD, "L2", ROWS, lambda: VECTORS)

    await tended(source(ROWS, interims, index))

    assert interims.covered(FIELD, "L2", ROWS) == 0


async def test_an_exact_search_stays_exact() -> None:
    """Where the definition asks for no index (FLAT, another metric), an interim one is not used either."""
    interims = Interims()
    await tended(source(ROWS, interims))

    hits, _ = search([source(ROWS, interims)], question(VECTORS[:200], index_id=0))

    truth = exact_search(VECTORS, VECTORS[:200], 3, "L2")[1]
    np.testing.assert_array_equal(hits.rows.reshape(200, 3), truth)
