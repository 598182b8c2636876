"""A storage without room: what needs it is refused and tried again, nothing acknowledged is lost (P14)."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from writer_house import QUIET, House, delete, insert

from mishards.errors import Kind, MishardsError
from mishards.model import FileKind
from mishards.storage.file import FileStorage


class Limited(FileStorage):
    """A storage that has no room for new objects while it is `full`."""

    def __init__(self, storage: FileStorage) -> None:
        self.__dict__.update(storage.__dict__)
        self.full = False

    async def put(self, path: str, data: bytes | memoryview) -> None:
        self._check(path)
        await super().put(path, data)

    async def put_file(self, path: str, source: Path) -> None:
        self._check(path)
        await super().put_file(path, source)

    def _check(self, path: str) -> None:
        if self.full:
            raise MishardsError(Kind.STORAGE_UNAVAILABLE, f"'{path}': No space left on device (os error 28)")


async def test_no_room(tmp_path: Path) -> None:
    """Large writes and flushes fail with a retryable error that tells why, small ones and deletes go on; once there is
    room everything goes on, and only what was acknowledged is found."""
    house = House(tmp_path)
    storage = house.storage = Limited(house.storage)
    settings = replace(QUIET, inline_bytes_max=2000)
    async with house.writer(settings=settings) as writer:
        books = await writer.create()
        await writer.write(books, insert([1, 2], "kept"))
        storage.full = True

        for action in (writer.write(books, insert(list(range(10, 300)), "lost")), writer.flush(books)):
            with pytest.raises(MishardsError, match="No space left on device") as raised:
                await action
            assert raised.value.kind is Kind.STORAGE_UNAVAILABLE
            assert raised.value.retryable
        await writer.write(books, insert([3], "small"))
        await writer.write(books, delete([1]))
        assert await writer.found(books) == {(books.partitions[0].id, 2): "kept", (books.partitions[0].id, 3): "small"}

        storage.full = False
        await writer.flush(books)

        assert writer.live(books, FileKind.ROWS) == []
        assert await writer.found(books) == {(books.partitions[0].id, 2): "kept", (books.partitions[0].id, 3): "small"}
