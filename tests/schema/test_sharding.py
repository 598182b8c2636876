"""Which shard a primary key belongs to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mishards.schema.keys import shard_of


def test_the_shard_of_a_stored_key_never_changes() -> None:
    """These keys lie in these shards for ever."""
    ints = pa.array([0, 1, 2, -1, 2**63 - 1, -(2**63)], pa.int64())
    texts = pa.array(["", "a", "b", "é", "455"])

    assert shard_of(ints, 16).tolist() == [15, 1, 14, 0, 7, 11]
    assert shard_of(texts, 16).tolist() == [0, 3, 9, 14, 11]


def test_neighbouring_keys_spread_evenly() -> None:
    """Keys in a row fall on all shards within 5 % of their fair share."""
    for keys in (pa.array(np.arange(100_000)), pa.array([str(key) for key in range(100_000)])):
        counts = np.bincount(shard_of(keys, 8), minlength=8)

        assert abs(counts - 12_500).max() < 625


@given(st.lists(st.text(), max_size=20), st.integers(1, 16))
def test_a_shard_is_one_of_those_there_are(keys: list[str], shards: int) -> None:
    """Every key has a shard below the number of shards; the same key the same one."""
    found = shard_of(pa.array(keys, pa.string()), shards)

    assert found.dtype == np.int32
    assert all(0 <= shard < shards for shard in found)
    assert found.tolist() == shard_of(pa.array(keys, pa.string()), shards).tolist()
