"""The disk cache: verified copies, bounded, one download at a time (P1, P15)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mishards.errors import Kind, MishardsError
from mishards.model import Part
from mishards.reader.cache import DiskCache
from mishards.segment.footer import seal


class FakeStorage:
    """Sealed objects by path; `fetch` waits while `held`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    def add(self, path: str, size: int = 1000) -> Part:
        self.objects[path] = seal(bytes(size), kind="scalars", rows=1, collection_id=1, shard=0)
        return Part(kind="scalars", path=path, bytes=len(self.objects[path]))

    async def fetch(self, path: str, destination: Path) -> None:
        self.fetched.append(path)
        await self.free.wait()
        if path not in self.objects:
            raise MishardsError(Kind.GONE, f"no object {path}")
        await asyncio.to_thread(destination.write_bytes, self.objects[path])


class Kept:
    def __init__(self, folder: Path, pool: ThreadPoolExecutor, bytes_max: int = 1 << 20) -> None:
        self.storage = FakeStorage()
        self.folder = folder / "cache"
        self.cache = DiskCache(self.storage, self.folder, bytes_max, pool)  # type: ignore[arg-type]
        self.cache.clear()

    @property
    def files(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


async def test_an_object_is_downloaded_once_however_many_want_it(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Those that come during the download share it, those after it find the copy."""
    kept = Kept(tmp_path, pool)
    part = kept.storage.add("a/b")
    kept.storage.free.clear()
    asking = [asyncio.create_task(kept.cache.get(part)) for _ in range(5)]
    await asyncio.sleep(0)
    kept.storage.free.set()

    paths = {*(await asyncio.gather(*asking)), await kept.cache.get(part)}

    assert kept.storage.fetched == ["a/b"]
    assert [path.read_bytes() for path in paths] == [kept.storage.objects["a/b"]]


async def test_a_corrupt_object_is_refused_and_fetched_anew(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """The error is retryable, nothing of it is kept, and a good copy is taken later."""
    kept = Kept(tmp_path, pool)
    part = kept.storage.add("a")
    good = kept.storage.objects["a"]
    kept.storage.objects["a"] = b"x" + good[1:]

    with pytest.raises(MishardsError) as caught:
        await kept.cache.get(part)
    assert caught.value.kind is Kind.STORAGE_UNAVAILABLE
    assert kept.cache.bytes == 0
    assert kept.files == []

    kept.storage.objects["a"] = good
    assert (await kept.cache.get(part)).read_bytes() == good


async def test_the_oldest_copies_make_room(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Never more bytes than the limit; what was asked for lately stays."""
    kept = Kept(tmp_path, pool, bytes_max=3500)
    parts = [kept.storage.add(str(number)) for number in range(4)]
    for part in parts[:3]:
        await kept.cache.get(part)
    await kept.cache.get(parts[0])

    await kept.cache.get(parts[3])

    assert kept.cache.bytes <= 3500
    assert {path.name for path in kept.files} == {"0", "2", "3"}
    assert kept.cache.bytes == sum(path.stat().st_size for path in kept.files)


async def test_pinned_copies_stay_however_full_the_cache_is(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """What is being mapped must be there; unpinned ones go first, and the rest when its pin ends."""
    kept = Kept(tmp_path, pool, bytes_max=1500)
    parts = [kept.storage.add(str(number)) for number in range(3)]

    async with kept.cache.pinning(parts[:2]):
        for part in (parts[2], *parts[:2]):
            await kept.cache.get(part)
        assert {path.name for path in kept.files} == {"0", "1"}
    assert {path.name for path in kept.files} == {"1"}


async def test_two_pins_of_one_copy_end_with_the_second(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Two loads share an object; a load that fails gives its pin back; none is left in the end."""
    kept = Kept(tmp_path, pool, bytes_max=0)
    part = kept.storage.add("a")

    async with kept.cache.pinning([part]):
        with pytest.raises(RuntimeError):
            async with kept.cache.pinning([part]):
                await kept.cache.get(part)
                raise RuntimeError("it cannot be mapped")
        assert [path.name for path in kept.files] == ["a"]

    assert kept.files == []
    assert not kept.cache._pins


async def test_an_object_that_is_gone_leaves_nothing_behind(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """GONE passes through; no lock and no file stay."""
    kept = Kept(tmp_path, pool)

    with pytest.raises(MishardsError) as caught:
        await kept.cache.get(Part(kind="scalars", path="gone", bytes=1))

    assert caught.value.kind is Kind.GONE
    assert kept.files == []
    assert kept.cache._fetching == {}


async def test_no_lock_outlives_its_download(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Asking for what is there takes no memory that grows with the objects ever seen."""
    kept = Kept(tmp_path, pool)
    part = kept.storage.add("a")

    await kept.cache.get(part)
    await kept.cache.get(part)

    assert kept.cache._fetching == {}


async def test_a_new_cache_trusts_nothing_it_finds(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """What an earlier process left is deleted."""
    kept = Kept(tmp_path, pool)
    await kept.cache.get(kept.storage.add("a"))

    again = Kept(tmp_path, pool)

    assert again.files == []
