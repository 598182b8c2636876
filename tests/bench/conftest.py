"""What tests of the benchmarks share."""

from pathlib import Path

import pytest

from bench.data import Dataset, clustered


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    """2,000 synthetic rows, their truth kept in a folder of the test."""
    return clustered(2_000, dim=16, cache=tmp_path)
