"""Discovery through the metadata service."""

import asyncio
from typing import Any, cast

from members_only import MembersOnly

from mishards import plugins
from mishards.clock import SystemClock
from mishards.discovery.context import Context
from mishards.discovery.database import DatabaseDiscovery
from mishards.ports import Discovery, MetadataStore
from mishards.testing.discovery_suite import WAIT_S, DiscoverySuite, member


def connect(store: MembersOnly, member_timeout_s: float = 30.0) -> DatabaseDiscovery:
    context = Context(cast(MetadataStore, store), SystemClock(), 0.002, 0.001, member_timeout_s)
    return cast(DatabaseDiscovery, plugins.load("discovery", "metadata")("metadata://", context))


class TestDatabase(DiscoverySuite):
    def connect(self) -> Discovery:
        return connect(MembersOnly())


async def next_of(watch: Any) -> list[str]:
    async with asyncio.timeout(WAIT_S):
        return [m.id for m in await anext(watch)]


async def test_heartbeats_go_on() -> None:
    """The beat of a registered member grows without further calls."""
    store = MembersOnly()
    discovery = connect(store)
    await discovery.register(member("a"))

    async with asyncio.timeout(WAIT_S):
        beats = [(await store.beats.get()).beat for _ in range(4)]
    assert beats == [1, 2, 3, 4]
    await discovery.close()


async def test_two_processes_see_each_other() -> None:
    """A member of another process is seen, and its silence after a crash is noticed."""
    store = MembersOnly()
    mine, other = connect(store, 0.05), connect(store)
    await other.register(member("b"))
    await mine.register(member("a"))
    watch = mine.watch()
    assert await next_of(watch) == ["a", "b"]

    await other.close()
    assert await next_of(watch) == ["a"]
    await mine.close()


async def test_outage_keeps_the_view() -> None:
    """With the service down nothing is yielded and nothing raised; afterwards what changed is seen, and beats go on."""
    store = MembersOnly()
    discovery = connect(store)
    await discovery.register(member("a"))
    watch = discovery.watch()
    assert await next_of(watch) == ["a"]

    store.down = True
    await discovery.register(member("b"))
    waiting = asyncio.ensure_future(next_of(watch))
    await asyncio.wait([waiting], timeout=0.01)
    assert not waiting.done()

    store.down = False
    assert await waiting == ["a", "b"]
    await discovery.close()


async def test_who_cannot_beat_does_not_judge() -> None:
    """While nobody's beats can be written, nobody leaves; afterwards a member that stays silent does."""
    store = MembersOnly()
    mine, other = connect(store, 0.05), connect(store)
    await other.register(member("b"))
    await mine.register(member("a"))
    watch = mine.watch()
    assert await next_of(watch) == ["a", "b"]

    store.frozen = True
    await other.close()
    waiting = asyncio.ensure_future(next_of(watch))
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()

    store.frozen = False
    assert await waiting == ["a"]
    await mine.close()


async def test_long_dead_record_is_deleted() -> None:
    """A record that was silent for a hundred time-outs is removed from the service."""
    store = MembersOnly()
    await store.beat(member("dead"))
    discovery = connect(store, 0.003)
    watch = discovery.watch()
    assert await next_of(watch) == ["dead"]
    assert await next_of(watch) == []

    waiting = asyncio.ensure_future(next_of(watch))
    async with asyncio.timeout(WAIT_S):
        assert await store.forgotten.get() == "dead"
    waiting.cancel()
    await discovery.close()
