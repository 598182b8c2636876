"""What a seed decides of the cluster itself: its processes and their settings."""

from __future__ import annotations

from random import Random

from mishards.config import BuilderSettings, ProxySettings, ReaderSettings, Settings, WriterSettings

BOUND_S = 2.0  # of Bounded: shorter than a run, so that it is felt


def drawn_nodes(random: Random) -> list[str]:
    """The roles of the first processes."""
    if random.random() < 0.2:
        return ["writer,builder", "proxy,reader"] + ["proxy,reader,writer,builder"[6:]] * random.choice((0, 1))
    return (
        ["writer"] * random.choice((1, 1, 2))
        + ["reader"] * random.choice((1, 2, 2, 3))
        + ["builder"] * random.choice((1, 1, 2))
        + ["proxy"] * random.choice((1, 1, 2))
    )


def drawn_settings(random: Random, pushes: bool) -> Settings:
    """Everything happens within moments: a run lasts seconds. Without pushes news are rare: what is old is noticed."""
    poll_s = random.choice((1.0, 1.0, 6.0))
    return Settings(
        port=0,
        http_port=0,
        beat_s=1.0,
        poll_s=poll_s if pushes else 6.0,
        member_timeout_s=3.0,
        drain_s=1.0,
        proxy=ProxySettings(
            bounded_staleness_s=BOUND_S,
            switch_wait_s=random.choice((0.2, 2.0)),
            result_bytes_direct=random.choice((256 << 10, 256 << 10, 0)),
            retry_share=random.choice((0.1, 1.0)),
            hedge_share=random.choice((0.05, 1.0)),
        ),
        reader=ReaderSettings(
            memory_bytes_max=random.choice((1 << 30, 1 << 30, 20_000)),
            cache_bytes_max=random.choice((1 << 30, 1 << 30, 20_000)),
            threads=1,
        ),
        writer=WriterSettings(
            group_bytes_max=random.choice((1 << 20, 1 << 20, 5_000)),
            queue_bytes_max=random.choice((1 << 20, 1 << 20, 10_000)),
            lease_s=2.0,
            inline_bytes_max=random.choice((64 << 10, 1500, 1)),
            seal_bytes=8_000,
            fresh_bytes_max=random.choice((1 << 20, 1 << 20, 12_000)),
            seal_files=random.choice((2, 4, 8)),
            seal_age_s=random.choice((0.7, 3.0)),
        ),
        builder=BuilderSettings(
            interval_s=0.5,
            merge_files=2,
            tombstones_max=random.choice((1, 5, 50)),
            threads=1,
            processes=0,
            task_lease_s=2.0,
            garbage_grace_s=(grace_s := random.choice((1.0, 5.0, 20.0))),
            orphan_quarantine_s=grace_s / 5,
        ),
    )
