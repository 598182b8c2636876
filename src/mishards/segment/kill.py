"""Which rows a tombstone kills (P4): the whole rule, as arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex


def killed(
    key_index: KeyIndex, row_versions: NDArray[np.int64], partition_id: int, tombstones: Tombstones, version: int
) -> NDArray[np.int64]:
    """Positions of the rows that tombstones visible since `version` kill; ascending, each once.

    `row_versions` (rows,) int64: the commit version of each row; all rows lie in partition `partition_id`.
    """
    at = key_index.find(tombstones.keys)
    below = np.where(tombstones.below == 0, version, tombstones.below)
    hit = (at >= 0) & ((tombstones.partitions == 0) | (tombstones.partitions == partition_id))
    at, below = at[hit], below[hit]
    return np.unique(at[row_versions[at] < below])
