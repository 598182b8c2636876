"""Which rows a tombstone kills (P4): the whole rule, as arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mishards.segment.fresh import Tombstones
from mishards.segment.keys import KeyIndex

_NONE: NDArray[np.int64] = np.zeros(0, np.int64)


def killed(
    key_index: KeyIndex, row_versions: NDArray[np.int64], partition_id: int, tombstones: Tombstones, version: int
) -> NDArray[np.int64]:
    """Positions of the rows that tombstones visible since `version` kill; ascending, each once.

    `row_versions` (rows,) int64: the commit version of each row; all rows lie in partition `partition_id`.
    """
    if not key_index.may_hold(*tombstones.key_range):
        return _NONE
    at = key_index.find(tombstones.keys)
    found = (at >= 0).nonzero()[0]
    if len(found) == 0:
        return _NONE
    at, below, partitions = at[found], tombstones.below[found], tombstones.partitions[found]
    hit = (partitions == 0) | (partitions == partition_id)
    hit &= row_versions[at] < np.where(below == 0, version, np.minimum(below, version))
    dead = at[hit]
    return dead if len(dead) < 2 else np.unique(dead)
