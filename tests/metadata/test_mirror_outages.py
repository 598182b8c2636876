"""The mirror while the metadata service does not answer: its view stays, others learn it, and it heals (P14, I17)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random
from typing import cast

import pytest
from mirrored import BOOKS, NEVER_S, Door, books, push_of, until
from structlog.testing import capture_logs

from mishards.clock import FakeClock
from mishards.errors import Kind
from mishards.metadata.mirror import RETRY_S, Mirror
from mishards.model import CollectionId, FileId, FileKind, Version
from mishards.ports import MetadataStore
from mishards.testing.metadata_records import a_commit, a_file, refused
from mishards.testing.sim.clocks import database_ms
from mishards.testing.sim.loop import SimLoop
from mishards.testing.sim.plain_store import PlainStore


async def test_an_outage_keeps_the_view_and_heals(door: Door, mirror: Mirror, clock: FakeClock) -> None:
    """With the service down refreshes fail at once, the view stays and pushes are still applied; it heals by itself,
    and each turn is logged once (P14, I17)."""
    door.down = True
    with capture_logs() as logs:
        for _ in range(3):
            await refused(Kind.METADATA_UNAVAILABLE, mirror.refresh())
        push = await push_of(door.store, a_commit("u2", a_file(3)))
        assert mirror.apply(push)
        await door.store.commit(a_commit("u3", a_file(4)))
        assert books(mirror).version == 2

        door.down = False
        mirror.hint()
        await until(lambda: books(mirror).version == 3)

    assert [entry["log_level"] for entry in logs] == ["warning", "info"]


async def test_a_round_that_fails_late_keeps_nobody_waiting(mirror: Mirror, door: Door) -> None:
    """Those who asked while it hung are told with it, and the mirror says that the service is lost until it is not."""
    door.free.clear()
    first = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls == ["heads"])
    later = asyncio.create_task(mirror.refresh())
    await asyncio.sleep(0)

    door.down = True
    door.free.set()
    await refused(Kind.METADATA_UNAVAILABLE, first)
    await refused(Kind.METADATA_UNAVAILABLE, later)
    assert mirror.lost

    door.down = False
    await mirror.refresh()
    assert not mirror.lost


async def test_without_the_service_a_mirror_does_not_start(door: Door, clock: FakeClock) -> None:
    """`start` fails while the service is down and succeeds later; a stopped mirror refuses to refresh."""
    mirror = Mirror(cast(MetadataStore, door), clock, poll_s=NEVER_S)
    door.down = True
    with capture_logs():
        await refused(Kind.METADATA_UNAVAILABLE, mirror.start())
    door.down = False

    await mirror.start()
    door.free.clear()
    waiting = asyncio.create_task(mirror.refresh())
    await until(lambda: door.calls[-1] == "heads" and len(door.calls) >= 3)
    await mirror.stop()

    await refused(Kind.UNAVAILABLE, waiting)
    await refused(Kind.UNAVAILABLE, mirror.refresh())


@pytest.mark.parametrize("poll_s", [0.5, 60.0])
def test_after_a_failure_it_asks_every_second(poll_s: float) -> None:
    """However rarely it polls else: what is asked for seldom is soon known again."""
    loop = SimLoop(Random(1))  # type: ignore[abstract]
    door = Door(PlainStore(lambda: database_ms(loop)))
    asked_s: list[float] = []

    async def scenario() -> None:
        mirror = Mirror(cast(MetadataStore, door), FakeClock(), poll_s)
        await mirror.start()
        door.on_call = lambda: asked_s.append(loop.time())
        door.down = True
        await refused(Kind.METADATA_UNAVAILABLE, mirror.refresh())
        await asyncio.sleep(3.5 * RETRY_S)
        door.down = False
        await asyncio.sleep(RETRY_S)
        assert not mirror.lost
        await mirror.stop()

    with capture_logs():
        loop.run(scenario())
    loop.close()

    pauses_s = {round(later - earlier, 6) for earlier, later in pairwise(asked_s[:4])}
    assert pauses_s == {min(poll_s, RETRY_S)}


async def test_what_one_process_missed_another_can_tell(mirror: Mirror, door: Door, clock: FakeClock) -> None:
    """As one push, with its payloads and removals: the other one knows the same afterwards."""
    behind = Mirror(cast(MetadataStore, door), clock, poll_s=NEVER_S)
    await behind.start()
    for request in (
        a_commit("u2", a_file(3), a_file(4, FileKind.TOMBSTONES)),
        a_commit("u3", a_file(5, FileKind.SEGMENT), removed=(1, 3)),
        a_commit("u4", a_file(6)),
    ):
        assert mirror.apply(await push_of(door.store, request))
    door.down = True

    delta = mirror.since(BOOKS, Version(1))

    assert delta is not None and behind.apply(delta)
    assert books(behind).files == books(mirror).files
    assert (books(behind).version, books(behind).head, books(behind).ts) == (4, "u4", books(mirror).ts)
    assert await behind.payload(books(behind).files[FileId(6)]) == b"payload 6"
    await behind.stop()


async def test_nothing_is_told_that_is_not_all_known(mirror: Mirror, door: Door) -> None:
    """Of a version that was jumped over, or whose removals or payloads are not here, and of what is known already."""
    assert mirror.since(BOOKS, Version(1)) is None
    assert mirror.since(CollectionId(9), Version(1)) is None
    mirror.apply(await push_of(door.store, a_commit("u2", a_file(3))))
    await door.store.commit(a_commit("u3"))
    await door.store.commit(a_commit("u4", a_file(4)))
    await mirror.refresh()
    assert mirror.since(BOOKS, Version(2)) is None
    assert mirror.since(BOOKS, Version(3)) is None
    for request in (a_commit("u5", a_file(5)), a_commit("u6", removed=(5,))):
        mirror.apply(await push_of(door.store, request))
    assert mirror.since(BOOKS, Version(4)) is not None

    books(mirror).forget_removed(Version(6))

    assert mirror.since(BOOKS, Version(4)) is None
