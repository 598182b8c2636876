"""What a seed decides of the cluster itself: its processes and their settings."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace

from mishards.config import BuilderSettings, ProxySettings, ReaderSettings, Settings, WriterSettings
from mishards.model import DataType, Field, FieldId, Schema
from mishards.testing.sim.definitions import Template
from mishards.wire import definitions as d

BOUNDS_SHARE = 0.3  # of the runs
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
            rest_values=1,
            task_lease_s=2.0,
            garbage_grace_s=(grace_s := random.choice((1.0, 5.0, 20.0))),
            orphan_quarantine_s=grace_s / 5,
        ),
    )


def drawn_bounds(random: Random, settings: WriterSettings) -> WriterSettings:
    """In some runs shards are so small that writes meet their bounds (P15, I20)."""
    if random.random() >= BOUNDS_SHARE:
        return settings
    return replace(
        settings,
        fresh_files_max=random.choice((1_000, 6)),
        tombstones_max=random.choice((10_000, 120)),
        segments_max=random.choice((1_000, 12)),
    )


def drawn_template(random: Random, name: str, defines: bool) -> Template:
    """A collection. `defines`: partitions will come and go, and the alias if it has one."""
    named: dict[str, Any] = {"database": "default", "collection": name}
    generated = random.random() < 0.2
    return Template(
        d.CreateCollection(**named, schema=schema(generated), shards=random.choice((1, 1, 2, 3))),
        d.CreateIndex(**named, field="vector", name="", type=random.choice(("FLAT", "HNSW")), metric="L2"),
        ("p", "q")[: random.choice((0, 0, 2)) or 2 * defines],
        random.choice((1, 1, 2)),
        f"also_{name}" if defines and random.random() < 0.5 else "",
    )


def schema(generated: bool) -> Schema:
    """`generated`: the service makes the primary keys."""
    return Schema(
        fields=(
            Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True, auto_id=generated),
            Field(id=FieldId(101), name="tag", type=DataType.INT64),
            Field(id=FieldId(102), name="g", type=DataType.INT64),
            Field(id=FieldId(103), name="vector", type=DataType.FLOAT_VECTOR, dim=2),
        )
    )
