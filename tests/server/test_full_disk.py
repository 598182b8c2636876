"""A disk that is full: writes are refused clearly, searches go on, nothing acknowledged is lost, and it heals (P14)."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows as r
from msgspec.structs import replace

from mishards.errors import Kind, MishardsError
from mishards.proxy.requests import RowsRequest
from mishards.schema.columns import Column
from mishards.testing.cluster import LIVELY, Cluster, cluster

DISK_MIB = 24
LARGE = 40_000  # rows that do not go inline
UNSEALED = replace(LIVELY, writer=replace(LIVELY.writer, seal_files=1000, seal_age_s=1000.0, lease_s=60.0))


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    if (await asyncio.to_thread(subprocess.run, mount, capture_output=True)).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    await asyncio.to_thread(subprocess.run, ["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left; the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def insert(made: Cluster, first: int, count: int) -> None:
    columns = {
        "id": Column(np.arange(first, first + count)),
        "number": Column(np.zeros(count, np.int64)),
        "vector": Column(np.ones((count, r.DIM), np.float32)),
    }
    request = RowsRequest(kind="upsert", collection=r.NAME, columns=columns, rows=count, timeout_s=2.0)
    await made.proxy.write(request)


async def refusal(made: Cluster, first: int, count: int) -> MishardsError:
    with pytest.raises(MishardsError) as raised:
        await insert(made, first, count)
    return raised.value


async def test_a_full_disk(disk: Path) -> None:
    """Large writes and small ones fail with a retryable error that says why; when there is room again they succeed."""
    async with cluster(disk, settings=UNSEALED) as made:
        await r.create(made.proxy)
        await insert(made, 0, 1000)
        await made.proxy.flush("default", [r.NAME])
        await insert(made, 1000, 100)
        assert await r.count(made.proxy) == 1100

        ballast = await asyncio.to_thread(fill, disk)
        large, small = await refusal(made, 10_000, LARGE), await refusal(made, 5_000, 3)

        assert large.kind is Kind.STORAGE_UNAVAILABLE
        assert "No space left on device" in large.message
        assert small.retryable
        options: dict[str, Any] = {"limit": 10, "query": [1.0] * r.DIM}
        assert len(await r.found(made.proxy, **options)) == 10
        assert await r.count(made.proxy) == 1100
        with pytest.raises(MishardsError) as raised:
            await made.proxy.flush("default", [r.NAME])
        assert raised.value.retryable

        ballast.unlink()
        await insert(made, 20_000, LARGE)
        await insert(made, 5_000, 3)
        await made.proxy.flush("default", [r.NAME])
        assert await r.count(made.proxy) == 1103 + LARGE
