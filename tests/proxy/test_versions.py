"""Consistency levels: when the metadata service is asked, and what goes on without it (P10, P14)."""

from __future__ import annotations

from typing import Any

import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import Consistency
from mishards.proxy.versions import Versions
from mishards.testing.metadata_records import a_collection


class FakeMirror:
    def __init__(self, clock: FakeClock) -> None:
        self.observed_s = clock.monotonic_s()
        self.refreshed = 0
        self.down = False
        self.lost = False

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "down")


class Case:
    """A manifest at hybrid time 100, observed now; Bounded allows five seconds."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.mirror = FakeMirror(self.clock)
        mirror: Any = self.mirror
        self.versions = Versions(mirror, self.clock, 5.0)
        self.manifest = Manifest(a_collection(), ts=100)

    async def asks(self, level: Consistency, guarantee_ts: int = 0) -> bool:
        before = self.mirror.refreshed
        await self.versions.reach(self.manifest, level, guarantee_ts)
        return self.mirror.refreshed > before


async def test_strong_always_asks() -> None:
    """Whatever is known."""
    assert await Case().asks(Consistency.STRONG)


@pytest.mark.parametrize(("guarantee_ts", "asks"), [(0, False), (1, False), (2, False), (100, False), (101, True)])
async def test_session_asks_for_what_the_client_has_seen(guarantee_ts: int, asks: bool) -> None:
    """Only a time stamp beyond the manifest's makes it ask; 1 and 2 are no times."""
    assert await Case().asks(Consistency.SESSION, guarantee_ts) is asks


async def test_bounded_asks_when_its_knowledge_is_too_old() -> None:
    """By this process' own clock (I16)."""
    case = Case()

    case.clock.advance(4.9)
    assert not await case.asks(Consistency.BOUNDED)
    case.clock.advance(0.2)
    assert await case.asks(Consistency.BOUNDED)


async def test_eventually_never_asks() -> None:
    """It answers from what is known."""
    case = Case()
    case.clock.advance(1000)

    assert not await case.asks(Consistency.EVENTUALLY, 1000)


async def test_during_an_outage_only_what_cannot_be_kept_fails() -> None:
    """Strong, and a session that has seen more; all else goes on (P14, I17)."""
    case = Case()
    case.mirror.down = True
    case.clock.advance(1000)

    await case.asks(Consistency.BOUNDED)
    await case.asks(Consistency.EVENTUALLY)
    await case.asks(Consistency.SESSION, 100)
    for level, guarantee_ts in ((Consistency.STRONG, 0), (Consistency.SESSION, 101)):
        with pytest.raises(MishardsError) as caught:
            await case.asks(level, guarantee_ts)
        assert caught.value.kind is Kind.METADATA_UNAVAILABLE


async def test_a_known_outage_costs_a_bounded_search_nothing() -> None:
    """It does not ask what did not answer a moment ago; Strong does."""
    case = Case()
    case.mirror.down = case.mirror.lost = True
    case.clock.advance(1000)

    assert not await case.asks(Consistency.BOUNDED)
    with pytest.raises(MishardsError):
        await case.asks(Consistency.STRONG)
