"""What a filter does to a search: what scoring the selected rows one by one would cost.

Measured on one core (AVX-512, 20,000 to 200,000 rows of 128 and 384), with the rows out of the processor's caches, as
they are when searches differ; with filters that go with the distance and others. An index decides for itself whether it
is worth it (`VectorIndex.prefers_exact`); all compare with this cost.
"""

from __future__ import annotations

import math

from mishards.index.stored import Stored

PAIR_S = 0.3e-9  # a float of a selected row, scored against a query
BATCH_PAIR_S = 0.03e-9  # ... by matrix products
BATCH_QUERIES = 8
GATHER_S = 0.2e-9  # ... copied first, for matrix products and for cosines
NORMALISE_S = 0.18e-9  # ... and normalised, for cosines
CHOOSE_S = 0.4e-9  # a row of the segment, looked at for whether it is selected

SURELY = 3  # standard deviations
EXACT_WORTH = 1.2  # an exact answer may cost this much more than a graph's ...
EXACT_WORTH_CLUSTERS = 4.0  # ... or that of clusters, in which a narrow filter leaves too few of the nearest


def exact_cost_s(count: int, rows: int, dim: int, nq: int, unit: bool) -> float:
    """The time to score `count` selected rows of a segment exactly, for all queries; `unit`: by cosine."""
    batch = nq >= BATCH_QUERIES
    once = (GATHER_S if batch or unit else 0.0) + (NORMALISE_S if unit else 0.0)
    return rows * CHOOSE_S + count * dim * (once + nq * (BATCH_PAIR_S if batch else PAIR_S))


def is_exact_better(index_s: float, count: int, stored: Stored, nq: int, k: int, worth: float = EXACT_WORTH) -> bool:
    """Whether to score the selected rows instead of spending `index_s` on an index, or k asks for half of them."""
    cost_s = exact_cost_s(count, stored.rows, stored.dim, nq, stored.metric == "COSINE")
    return 2 * k >= count or cost_s < (worth if count < stored.rows else 1.0) * index_s


def widened(breadth: int, wanted: int, allowed_count: int, rows: int) -> int:
    """The breadth of a walk (ef) that makes up for a filter: it finds about what it finds without one, and meets
    `wanted` allowed rows nearly always, if they lie evenly."""
    scarcity = rows / max(1, allowed_count)
    surely = wanted + SURELY * math.sqrt(wanted)
    return math.ceil(max(breadth * math.sqrt(scarcity), surely * scarcity))
