"""Loading segments from real files: shared between records, within a small cache, once at a time (P1, P15)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import held as h
import pyarrow as pa
import pytest
from msgspec.structs import replace

from mishards.model import VERSION_COLUMN, File, FileId, FileKind, Part
from mishards.reader.cache import DiskCache
from mishards.reader.loading import Loader
from mishards.segment.write import write_segment
from mishards.storage.file import FileStorage, open_storage


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


async def stored(storage: FileStorage, folder: Path, id: int, keys: list[int]) -> File:
    """A segment in storage."""
    table = pa.Table.from_batches([h.batch(h.rows(keys))])
    table = table.append_column(VERSION_COLUMN, pa.array([1] * len(keys), pa.int64()))
    local = folder / f"local-{id}"
    local.mkdir()
    made = write_segment(table, h.schema(), local, 1, 0)
    parts = []
    for each in made.parts:
        path = f"1/0/t/{id}.{each.kind}"
        await storage.put_file(path, each.path)
        parts.append(Part(kind=each.kind, path=path, bytes=each.bytes, field_id=each.field_id))
    return h.file(id, FileKind.SEGMENT, len(keys), 1, parts=tuple(parts))


def loader(folder: Path, storage: Any, pool: ThreadPoolExecutor, bytes_max: int = 1 << 20) -> Loader:
    cache = DiskCache(storage, folder / "cache", bytes_max, pool)
    cache.clear()
    return Loader(cache, pool, lambda name: None, 4)  # type: ignore[arg-type,return-value]


async def test_records_of_one_segment_share_its_columns(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Attaching an index or a delete bitmap downloads and maps nothing again."""
    storage = open_storage((tmp_path / "storage").as_uri())
    file = await stored(storage, tmp_path, 1, [1, 2])
    made = loader(tmp_path, storage, pool)

    one = await made.load(file, h.collection())
    two = await made.load(replace(file, id=FileId(2)), h.collection())

    assert one is not two
    assert one.columns is two.columns
    assert h.alive([two.source(1)]) == [1, 2]


async def test_a_segment_larger_than_the_cache_is_loaded_all_the_same(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Its parts may push one another out of the cache, but not before they are mapped."""
    storage = open_storage((tmp_path / "storage").as_uri())
    file = await stored(storage, tmp_path, 1, list(range(50)))

    held = await loader(tmp_path, storage, pool, bytes_max=100).load(file, h.collection())

    assert h.alive([held.source(1)]) == list(range(50))


async def test_segments_loaded_side_by_side_in_a_small_cache_are_all_loaded(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """One load must not take away what another has fetched and not yet mapped."""
    storage = open_storage((tmp_path / "storage").as_uri())
    files = [await stored(storage, tmp_path, id, list(range(id * 100, id * 100 + 50))) for id in range(1, 5)]
    made = loader(tmp_path, storage, pool, bytes_max=max(part.bytes for part in files[0].parts) + 10)

    held = await asyncio.gather(*(made.load(file, h.collection()) for file in files))

    assert h.alive([each.source(1) for each in held]) == sorted(
        k for id in range(1, 5) for k in range(id * 100, id * 100 + 50)
    )
