"""A metadata service that falls back to an earlier state, as when a replica that was behind takes over (P3, P14).

Whatever was done since then never was: commits, leases, snapshots. What had been acknowledged must be put back by the
writer that committed it, or reported by it in the log, or that writer has died. Until a proxy hears of it, searches may
see what is forgotten, but no mixture of the two pasts; a Strong one sees what is there now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mishards.testing.sim.database import PlainDatabase
from mishards.testing.sim.loop import State
from mishards.testing.sim.oracle import Lost

if TYPE_CHECKING:
    from mishards.testing.sim.world import World

GRACE_S_MIN = 5.0  # of removed files: those that were removed in what is forgotten are needed again
STATE_EACH_S = 0.1
PUT_BACK_S_MAX = 60.0


class Forgetting:
    """Of one run."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def _database(self) -> PlainDatabase | None:
        """None: it forgets nothing."""
        world = self._world
        forgets = world.faults.forgets and world.settings.builder.garbage_grace_s >= GRACE_S_MIN
        return world.database if forgets and isinstance(world.database, PlainDatabase) else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of events, that may happen."""
        return ("fall back",) if self._database else ()

    @asynccontextmanager
    async def possible(self) -> AsyncIterator[None]:
        """In here the states of the last moments are kept."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()

    async def _keep(self) -> None:
        while (database := self._database) is not None:
            database.keep_state()
            await asyncio.sleep(STATE_EACH_S)

    def fall_back(self) -> bool:
        """The last moments never were. Whether there was anything to go back to."""
        world, database = self._world, self._database
        tables = None if database is None else database.fall_back(world.random)
        if tables is None:
            return False
        pins = {(kept.pin.collection_id, kept.pin.name) for kept in tables.pins.values()}
        for name in world.names:
            history, version = world.history(name), tables.collections[world.ids[name]].version
            world.note(f"metadata service falls back: {name} from version {history.version} to {version}")
            history.fall_back(version, world.loop.time())
            for called in [called for called in history.pins if (history.id, called) not in pins]:
                del history.pins[called]  # in place: a query of it may be under way
        for client in world.clients:
            client.session.ts.clear()
        return True

    async def check(self) -> None:
        """What was acknowledged is committed again, or reported, if its writer lives."""
        ends_s = self._world.loop.time() + PUT_BACK_S_MAX
        while (lost := self._lost()) and self._world.loop.time() < ends_s:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.5)
        for uuid in lost:
            self._world.violated(
                "lost", f"commit {uuid}, acknowledged and forgotten, was neither put back nor reported"
            )

    def _lost(self) -> list[str]:
        """The uuids of those for which nothing of that is true."""
        world = self._world
        acknowledged = {tag for written in world.writes if written.told_s is not None for tag in written.tags}
        return [
            each.commit.uuid
            for history in map(world.history, world.names)
            for each in history.lost
            if (
                any(not history.written.get(tag) for tag in each.tags & acknowledged)  # else another commit has them
                or (history.id, each.commit.ts) in world.acknowledged_ts
            )
            and not each.is_back_in(history)
            and not any(self._is_excused(other) for other in history.lost if _same_writes(each, other))
        ]

    def _is_excused(self, lost: Lost) -> bool:
        uuid = lost.commit.uuid
        return self._world.committed_by[uuid].process.state is State.DEAD or uuid in self._world.reported


def _same_writes(one: Lost, other: Lost) -> bool:
    """What was put back and lost again is reported under its last uuid; what was forgotten before it was answered, and
    then committed anew and forgotten once more, under the uuid that was answered."""
    return one.files == other.files or (bool(one.tags) and one.tags <= other.tags)
