"""When each row of one held file died, so that a search at any version sees exactly the rows of that version (P8, I5).

A row dies at the smallest version at which a tombstone that kills it became visible. Kills arrive in any order; kills
newer than a version never change what that version sees, so a mask handed to a search stays right while more arrive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).max


class Deaths:
    """The deaths of rows 0..rows-1. `dead` are those a delete bitmap already masks: dead at every version asked for."""

    def __init__(self, rows: int, dead: NDArray[np.bool_] | None = None) -> None:
        self._rows = rows
        self._died: NDArray[np.int64] | None = None
        self._latest = 0  # the newest version at which a row died
        self._alive: NDArray[np.bool_] | None = None  # at `_latest` and later; None: not computed, or all
        if dead is not None and dead.any():
            self._died = np.where(dead, np.int64(0), np.int64(NEVER))

    def kill(self, positions: NDArray[np.int64], version: int) -> None:
        """The rows at `positions` are dead from `version` on, if not before."""
        if len(positions) == 0:
            return
        if self._died is None:
            self._died = np.full(self._rows, NEVER, np.int64)
        self._died[positions] = np.minimum(self._died[positions], version)
        self._latest = max(self._latest, version)
        self._alive = None

    def alive(self, version: int) -> NDArray[np.bool_] | None:
        """Which rows live at `version`, (rows,) bool, not to be written to; None when all do."""
        if self._died is None:
            return None
        if version < self._latest:
            return self._died > version
        if self._alive is None:
            self._alive = self._died == NEVER
        return self._alive
