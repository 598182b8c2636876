"""What a filter does to an index: when to search exactly instead, and how much wider to search when not."""

from __future__ import annotations

import math

# Rows scanned one after the other in the time of one step of a filtered HNSW walk. Measured with ef 64 on
# 100,000 x 128: walk and scan cost the same (1 ms) at 13 % allowed.
SCANNED_PER_STEP = 26
EF_USUAL = 64


def prefers_exact(allowed_count: int, rows: int, k: int) -> bool:
    """Whether scoring all allowed rows is faster than an index, or k asks for half of them anyway.

    A walk takes about ef * rows / allowed steps, a scan `allowed`: of 100,000 rows below 13 %, of a million below 4 %.
    """
    steps = max(EF_USUAL, k) * rows / max(1, allowed_count)
    return allowed_count < SCANNED_PER_STEP * steps or 2 * k >= allowed_count


def widened(breadth: int, allowed_count: int, rows: int) -> int:
    """A breadth of search (ef, nprobe) at which a filtered search meets as many allowed rows as an unfiltered one."""
    return math.ceil(breadth * rows / max(1, allowed_count))
