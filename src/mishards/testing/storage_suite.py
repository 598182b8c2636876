"""What every storage back end must do: subclass `StorageSuite` and give it a `storage` fixture.

class TestMyStorage(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path): return open_storage(...)
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mishards.errors import Kind, MishardsError
from mishards.ports import Storage

PATH = "7/0/token/object.rows"


class StorageSuite:
    """The contract of `ports.Storage`."""

    async def test_what_was_put_is_what_is_got(self, storage: Storage) -> None:
        """An object is read back byte for byte, whether it was put as bytes or as a view."""
        await storage.put(PATH, b"abc")
        await storage.put(PATH + "2", memoryview(b"xabcx")[1:4])
        await storage.put(PATH + "3", b"")

        assert await storage.get(PATH) == b"abc"
        assert await storage.get(PATH + "2") == b"abc"
        assert await storage.get(PATH + "3") == b""

    async def test_a_put_may_be_repeated(self, storage: Storage) -> None:
        """Putting the same bytes at the same path again succeeds, also at the same moment."""
        await asyncio.gather(*(storage.put(PATH, b"abc") for _ in range(4)))

        assert await storage.get(PATH) == b"abc"
        assert await storage.list("7") == [PATH]

    async def test_a_file_travels_whole(self, storage: Storage, tmp_path: Path) -> None:
        """A local file larger than one part of an upload comes back byte for byte through `fetch`."""
        source = tmp_path / "source"
        source.write_bytes(bytes(range(256)) * (12 << 12))

        await storage.put_file(PATH, source)
        await storage.fetch(PATH, tmp_path / "copy")

        assert (tmp_path / "copy").read_bytes() == source.read_bytes()
        assert files_in(tmp_path) == {"source", "copy"}

    async def test_fetch_replaces_an_older_copy(self, storage: Storage, tmp_path: Path) -> None:
        """Fetching to a path that exists leaves the object's bytes there, also when it is fetched twice."""
        (tmp_path / "copy").write_bytes(b"older")
        await storage.put(PATH, b"abc")

        await storage.fetch(PATH, tmp_path / "copy")
        await storage.fetch(PATH, tmp_path / "copy")

        assert (tmp_path / "copy").read_bytes() == b"abc"

    async def test_a_local_copy_outlives_the_object(self, storage: Storage, tmp_path: Path) -> None:
        """Deleting an object leaves a fetched copy as it was."""
        await storage.put(PATH, b"abc")
        await storage.fetch(PATH, tmp_path / "copy")

        await storage.delete([PATH])

        assert (tmp_path / "copy").read_bytes() == b"abc"

    async def test_a_missing_object_is_gone(self, storage: Storage, tmp_path: Path) -> None:
        """Reading an object that does not exist raises GONE, names it, and leaves no local file."""
        with pytest.raises(MishardsError, match=r"object\.rows") as got:
            await storage.get(PATH)
        with pytest.raises(MishardsError) as fetched:
            await storage.fetch(PATH, tmp_path / "copy")

        assert got.value.kind is fetched.value.kind is Kind.GONE
        assert files_in(tmp_path) == set()

    async def test_delete_ignores_what_is_missing(self, storage: Storage) -> None:
        """Deleting removes every object named, whether or not some of them never existed."""
        await storage.put(PATH, b"abc")
        await storage.put(PATH + "2", b"abc")

        await storage.delete(["7/0/token/never", PATH, "8/never", PATH + "2"])
        await storage.delete([])

        assert await storage.list("7") == []

    async def test_list_gives_whole_paths_below_a_prefix(self, storage: Storage) -> None:
        """Listing gives the full paths below a folder and nothing of a neighbour whose name starts alike."""
        for path in ("7/0/a/x.rows", "7/1/b/y.tombs", "70/0/c/z.rows"):
            await storage.put(path, b"abc")

        assert await storage.list("7") == ["7/0/a/x.rows", "7/1/b/y.tombs"]
        assert await storage.list("") == ["7/0/a/x.rows", "7/1/b/y.tombs", "70/0/c/z.rows"]
        assert await storage.list("9") == []


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}
