"""Rows that expired are dropped by rewrites, some time after searches ceased to see them."""

from __future__ import annotations

from building import Shop, settle
from msgspec.structs import replace as changed
from test_builder_policy import COLLECTION, SETTINGS, kind_named, segment

from mishards.builder.policy import Rewrite, choose
from mishards.model import FileKind
from mishards.schema.expiry import DROP_MARGIN_S, TTL_PROPERTY

TTL_S = 100


def aged(id: int, oldest_ts: int, newest_ts: int, dead: int = 0):
    return changed(segment(id, dead=dead), oldest_ts=oldest_ts, newest_ts=newest_ts)


def test_segments_with_many_expired_rows_are_rewritten() -> None:
    """Expired rows count as dead ones; how many there are is guessed from the ages of the oldest and the newest."""
    files = [
        aged(1, 100, 200),  # 20 % expired
        aged(2, 90, 200),  # more
        aged(3, 100, 200, dead=1),  # 20 %, and one dead
        aged(4, 50, 60),  # all
        aged(5, 121, 200),  # none
        aged(6, 0, 60),  # not known
    ]

    tasks = choose(COLLECTION, files, kind_named, SETTINGS, settled=None, expired_ts=120)

    rewritten = [task.inputs[0] for task in tasks if isinstance(task, Rewrite)]
    merged = {id for task in tasks if not isinstance(task, Rewrite) for id in task.inputs}
    assert set(rewritten) | merged >= {2, 3, 4}
    assert not {1, 5, 6} & set(rewritten)


async def segments_of_two_ages(shop: Shop) -> None:
    await shop.write({key: key for key in range(10)})
    shop.clock.advance(50)
    await shop.write({key: key for key in range(10, 20)})
    await shop.seal()


async def rows(shop: Shop) -> int:
    return sum(file.rows for file in await shop.live(FileKind.SEGMENT))


async def test_expired_rows_go(shop: Shop) -> None:
    """A margin after their time rows are dropped, and a segment without any row left goes as a whole."""
    await segments_of_two_ages(shop)
    await shop.define(properties={TTL_PROPERTY: str(TTL_S)})

    shop.clock.advance(TTL_S + DROP_MARGIN_S - 51)
    await settle(shop)
    assert await rows(shop) == 20

    shop.clock.advance(12)  # a fifth of the time between the oldest and the newest row
    await settle(shop)
    assert await rows(shop) == 10

    shop.clock.advance(40)
    await settle(shop)
    assert await shop.live(FileKind.SEGMENT) == []


async def test_without_a_time_to_live_nothing_goes(shop: Shop) -> None:
    """Rows of whatever age stay."""
    await segments_of_two_ages(shop)

    shop.clock.advance(1e9)
    await settle(shop)

    assert await rows(shop) == 20
    await shop.check()
