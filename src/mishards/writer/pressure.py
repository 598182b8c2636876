"""Back-pressure (P15): how much of each shard is not in segments yet, and what writes feel of it.

At 80 % of the bound writes slow down, at 100 % rows are refused; deletes never are. The numbers are those of the
sealer's last check, plus what was committed since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mishards.errors import Kind, MishardsError
from mishards.writer.leases import Shard

SLOW_SHARE = 0.8
PAUSE_S_MAX = 0.2  # of one write, just below the bound


def pause_s(bytes: int, limit: int) -> float:
    """How long a write waits: nothing below 80 % of the limit, then growing evenly."""
    over = (bytes / limit - SLOW_SHARE) / (1 - SLOW_SHARE)
    return min(max(over, 0.0), 1.0) * PAUSE_S_MAX


class Pressure:
    """Bytes of fresh rows by shard."""

    def __init__(self, fresh_bytes_max: int) -> None:
        self._limit = fresh_bytes_max
        self._bytes: dict[Shard, int] = {}

    def set(self, counted: dict[Shard, int]) -> None:
        """Replace all numbers by what was counted."""
        self._bytes = counted

    def add(self, shard: Shard, bytes: int) -> None:
        self._bytes[shard] = self._bytes.get(shard, 0) + bytes

    async def admit(self, shards: Iterable[Shard]) -> None:
        """Let a write of rows pass, later if a shard is nearly full. RATE_LIMIT when one is."""
        fullest = max(shards, key=lambda shard: self._bytes.get(shard, 0))
        bytes = self._bytes.get(fullest, 0)
        if bytes >= self._limit:
            raise MishardsError(
                Kind.RATE_LIMIT,
                f"shard {fullest.number} of collection {fullest.collection_id} holds {bytes} bytes of rows "
                f"that are not in segments yet; the limit is {self._limit} bytes",
            )
        if wait_s := pause_s(bytes, self._limit):
            await asyncio.sleep(wait_s)
