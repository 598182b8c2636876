"""Deaths: what each version sees, whatever the order in which kills arrive (P8, I11)."""

from __future__ import annotations

import numpy as np
import pytest

from mishards.reader.deaths import Deaths


@pytest.mark.parametrize("seed", range(30))
def test_each_version_sees_the_rows_not_yet_killed(seed: int) -> None:
    """A row lives at v exactly when no kill up to v names it."""
    random = np.random.default_rng(seed)
    kills = [(random.integers(0, 50, 5), int(random.integers(1, 20))) for _ in range(12)]
    deaths = Deaths(50)
    seen = []
    for positions, version in kills:
        deaths.kill(np.unique(positions), version)
        asked = int(random.integers(0, 25))
        seen.append((asked, deaths.alive(asked)))

    for version in range(25):
        dead = {int(p) for positions, killed in kills if killed <= version for p in positions}
        alive = deaths.alive(version)
        assert alive is not None
        assert set(np.flatnonzero(~alive).tolist()) == dead


def test_without_deaths_there_is_no_mask() -> None:
    """None stands for all rows, so that searches need no bitmap."""
    assert Deaths(10).alive(5) is None
    assert Deaths(10, np.zeros(10, bool)).alive(5) is None


def test_rows_masked_by_a_delete_bitmap_are_dead_at_every_version() -> None:
    """The bitmap holds at any version; later kills add to it."""
    deaths = Deaths(3, np.array([True, False, False]))
    deaths.kill(np.array([1]), 9)

    assert deaths.alive(8).tolist() == [False, True, True]  # type: ignore[union-attr]
    assert deaths.alive(9).tolist() == [False, False, True]  # type: ignore[union-attr]
