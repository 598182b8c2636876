"""Back-pressure: what a shard may hold that is not worked off yet, and what writes feel of it (P15)."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs
from test_sealing_policy import BOOKS, file

from mishards.config import WriterSettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import File, FileKind, Version
from mishards.writer.leases import Shard
from mishards.writer.pressure import PAUSE_S_MAX, Pressure, pause_s

SETTINGS = WriterSettings(fresh_bytes_max=100, fresh_files_max=10, tombstones_max=50, segments_max=4)
SHARD, OTHER = Shard(BOOKS.id, 0), Shard(BOOKS.id, 1)


def measured(*files: File) -> Pressure:
    pressure = Pressure(SETTINGS)
    pressure.measure([Manifest(BOOKS, files={each.id: each for each in files})])
    return pressure


async def refusal(pressure: Pressure, *shards: Shard) -> MishardsError:
    with pytest.raises(MishardsError) as raised:
        await pressure.admit(Manifest(BOOKS), shards)
    return raised.value


def test_writes_slow_down_from_four_fifths() -> None:
    """Below 80 % of the limit a write does not wait, at the limit it waits longest."""
    assert pause_s(0.80) == 0
    assert pause_s(0.90) == pytest.approx(PAUSE_S_MAX / 2)
    assert pause_s(2.00) == PAUSE_S_MAX


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([file(1, bytes=60), file(2, bytes=40)], "holds 100 bytes of rows .* the limit is 100 .writer.fresh_bytes_max"),
        ([file(id, bytes=1) for id in range(1, 11)], "holds 10 files .* the limit is 10 .writer.fresh_files_max"),
        ([file(1, FileKind.TOMBSTONES, rows=51)], "holds 51 deletes .* the limit is 50 .writer.tombstones_max"),
        ([file(id, FileKind.SEGMENT) for id in range(1, 5)], "holds 4 segments; the limit is 4 .writer.segments_max"),
    ],
)
async def test_each_bound_refuses_rows(files: list[File], message: str) -> None:
    """A shard at any one of its bounds refuses rows with the fact, the value, the limit and its setting's name."""
    error = await refusal(measured(*files), OTHER, SHARD)

    assert error.kind is Kind.RATE_LIMIT
    with pytest.raises(MishardsError, match=message):
        raise error


async def test_other_shards_go_on() -> None:
    """A full shard concerns those writes alone that have rows for it."""
    pressure = measured(file(1, bytes=500))

    await pressure.admit(Manifest(BOOKS), [OTHER])

    assert (await refusal(pressure, OTHER, SHARD)).kind is Kind.RATE_LIMIT


async def test_commits_count_at_once() -> None:
    """What was committed since the last measurement counts, in bytes and in files."""
    pressure = measured()
    for number in range(1, 11):
        await pressure.admit(Manifest(BOOKS), [SHARD])
        pressure.add(SHARD, 1, Version(number))

    assert "10 files" in (await refusal(pressure, SHARD)).message
    pressure.measure([Manifest(BOOKS, Version(8))])  # whoever has not heard of all of them has nothing to say
    assert "10 files" in (await refusal(pressure, SHARD)).message
    pressure.fell_back(BOOKS.id)
    pressure.measure([Manifest(BOOKS, Version(8))])
    assert pressure.fullness(SHARD).share == 0


async def test_a_collection_that_is_not_held_yet_is_counted_by_its_first_write() -> None:
    """A shard that was full stays so for whoever takes it over, or takes it again after an outage."""
    pressure, full = measured(), Manifest(BOOKS, files={id: file(id) for id in range(1, 11)})  # type: ignore[misc]
    pressure.measure([])

    with pytest.raises(MishardsError, match="holds 10 files"):
        await pressure.admit(full, [SHARD])


async def test_a_shard_takes_rows_again() -> None:
    """What was worked off makes room; reaching a bound and leaving it are each told once."""
    full = Manifest(BOOKS, files={each.id: each for each in [file(1, bytes=500)]})
    pressure = Pressure(SETTINGS)
    with capture_logs() as logs:
        pressure.measure([full])
        for _ in range(3):
            await refusal(pressure, SHARD)
        pressure.measure([Manifest(BOOKS)])
        await pressure.admit(Manifest(BOOKS), [SHARD])

    events: list[Any] = [entry["event"] for entry in logs]
    assert events == ["shard refuses rows", "shard takes rows again"]


async def test_segments_are_counted_anew_with_each_layout() -> None:
    """A merge makes room at the next measurement."""
    manifest = Manifest(BOOKS, files={id: file(id, FileKind.SEGMENT) for id in (1, 2, 3, 4)})  # type: ignore[misc]
    pressure = Pressure(SETTINGS)
    pressure.measure([manifest])
    assert pressure.fullness(SHARD).share == 1

    for id in (1, 2, 3):
        del manifest.segments[file(id).id]
    manifest.layout = Version(5)
    pressure.measure([manifest])
    assert pressure.fullness(SHARD).value == 1


async def test_rows_of_a_dropped_partition_do_not_count() -> None:
    """They go with their partition, and no seal would make room."""
    assert measured(file(1, bytes=500, partition=99)).fullness(SHARD).share == 0
