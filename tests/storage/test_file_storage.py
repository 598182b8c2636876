"""Storage in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mishards.errors import Kind, MishardsError, SetupError
from mishards.ports import Storage
from mishards.storage.file import open_storage
from mishards.testing.storage_suite import PATH, StorageSuite


class TestFileStorage(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage((tmp_path / "made" / "on demand").as_uri())


async def test_fetch_costs_no_copy_on_one_file_system(tmp_path: Path) -> None:
    """A fetched copy shares its bytes with the object by a hard link."""
    storage = open_storage((tmp_path / "root").as_uri())
    await storage.put(PATH, b"abc")

    await storage.fetch(PATH, tmp_path / "copy")

    assert (tmp_path / "copy").samefile(tmp_path / "root" / PATH)


async def test_deleting_the_last_object_leaves_no_empty_folders(tmp_path: Path) -> None:
    """Tokens come and go (P1), and so do their folders."""
    storage = open_storage(tmp_path.as_uri())
    await storage.put(PATH, b"abc")

    await storage.delete([PATH])

    assert not (tmp_path / "7").exists()


async def test_a_broken_disk_is_unavailable(tmp_path: Path) -> None:
    """What the file system refuses is STORAGE_UNAVAILABLE, retryable, and names the path."""
    storage = open_storage(tmp_path.as_uri())
    (tmp_path / "7").write_bytes(b"a file where a folder should be")

    with pytest.raises(MishardsError, match=PATH) as raised:
        await storage.put(PATH, b"abc")

    assert raised.value.kind is Kind.STORAGE_UNAVAILABLE
    assert raised.value.retryable


@pytest.mark.parametrize("url", ["file://host/path", "file:relative", "/abs", "s3://bucket", "file:///a?b=1"])
def test_a_wrong_url_is_refused(url: str) -> None:
    """Only file:///absolute/path opens a directory; anything else says so."""
    with pytest.raises(SetupError, match="not of the form"):
        open_storage(url)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A root below a plain file stops the start with one line."""
    (tmp_path / "plain").write_bytes(b"")

    with pytest.raises(SetupError, match="cannot be made"):
        open_storage((tmp_path / "plain" / "root").as_uri())
