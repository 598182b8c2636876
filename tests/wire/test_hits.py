"""The merge: the same answer however hits are spread over parts (I5, I13)."""

from __future__ import annotations

import numpy as np
import pytest

from mishards.wire.hits import Hits, best, gather, pack, unpack


def hits_of(rows: list[tuple[int, float, int]]) -> Hits:
    n = len(rows)
    zeros = np.zeros(n, np.int64)
    return Hits(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        zeros,
        zeros,
        zeros.astype(np.int32),
        zeros,
    )


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("seed", range(20))
def test_merging_parts_equals_sorting_everything(metric: str, seed: int) -> None:
    """Score in the metric's direction, then primary key, with offset and limit, for any split into parts."""
    random = np.random.default_rng(seed)
    rows = [(int(random.integers(3)), float(random.integers(4)), key) for key in range(60)]
    sign = 1 if metric == "L2" else -1
    wanted = [
        [(row[1], row[2]) for row in sorted(rows, key=lambda row: (sign * row[1], row[2])) if row[0] == query][2:9]
        for query in range(3)
    ]
    cuts = sorted(random.integers(0, 61, 3).tolist())
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]

    merged, counts = best(gather([hits_of(part) for part in parts if part], False), 3, metric, 7, 2)

    found = list(zip(merged.scores.tolist(), merged.keys.tolist(), strict=True))
    ends = np.cumsum([0, *counts])
    assert [found[ends[query] : ends[query + 1]] for query in range(3)] == wanted


def test_queries_without_hits_have_a_count_of_zero() -> None:
    """Every query has a count, also when nothing was found at all."""
    _, counts = best(gather([], True), 4, "L2", 10)

    assert counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("text", [False, True])
def test_a_message_brings_back_the_same_hits(text: bool) -> None:
    """Packing and unpacking keeps queries, scores and keys of both types."""
    hits = hits_of([(0, 1.5, 3), (0, 2.5, 4), (2, 0.5, 9)])
    if text:
        hits = Hits(
            hits.queries, hits.scores, np.array(["x", "y", "é"]), hits.files, hits.positions, hits.sources, hits.rows
        )

    back = unpack(pack(hits, np.array([2, 0, 1], np.int32), memoryview(b""), text, 3, 0), 5, text)

    assert back.queries.tolist() == [0, 0, 2]
    assert back.scores.tolist() == [1.5, 2.5, 0.5]
    assert back.keys.tolist() == hits.keys.tolist()
    assert back.sources.tolist() == [5, 5, 5]
