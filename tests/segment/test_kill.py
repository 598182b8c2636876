"""P4: which rows a tombstone kills."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mishards.segment.fresh import Tombstones, concat, tombstones_of
from mishards.segment.keys import KeyIndex
from mishards.segment.kill import killed

KEYS = KeyIndex(pa.array([10, 20, 30]))
VERSIONS = np.array([5, 6, 7])
PARTITION = 4


def stones(*keys: int, below: int = 0, partition: int = 0) -> Tombstones:
    return tombstones_of(pa.array(keys, pa.int64()), below, partition)


@pytest.mark.parametrize(
    ("tombstones", "version", "dead"),
    [
        (stones(10, 20, 30), 7, [0, 1]),  # strictly smaller versions die
        (stones(10, 20, 30), 8, [0, 1, 2]),
        (stones(30, below=7), 9, []),  # a delete by filter spares what came after its query
        (stones(30, below=8), 9, [2]),
        (stones(20, 30, below=99), 7, [1]),  # and what came after itself: `below` may be a version of a lost chain
        (stones(10, 99), 9, [0]),
        (stones(10, partition=PARTITION), 9, [0]),
        (stones(10, partition=PARTITION + 1), 9, []),
        (concat([stones(10, partition=PARTITION + 1), stones(10), stones(10)]), 9, [0]),
        (stones(), 9, []),
    ],
)
def test_a_tombstone_kills_older_rows_of_its_key_and_partition(
    tombstones: Tombstones, version: int, dead: list[int]
) -> None:
    """A row dies when its key and partition match and its version is below the tombstone's reach, each row once."""
    assert killed(KEYS, VERSIONS, PARTITION, tombstones, version).tolist() == dead
