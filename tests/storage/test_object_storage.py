"""Storage over obstore without a disk: what S3 shares, and S3's URL."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from mishards.errors import SetupError
from mishards.ports import Storage
from mishards.storage.objects import ObjectStorage
from mishards.storage.remote import open_storage
from mishards.testing.storage_suite import StorageSuite


class TestObjectStorage(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return ObjectStorage(MemoryStore(), "memory")


def test_a_bucket_opens_without_a_connection() -> None:
    """Opening a well-formed URL touches no network; the first request would."""
    assert open_storage("s3://bucket/prefix")


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "http://bucket", "s3://bucket?region=x"])
def test_a_wrong_url_is_refused(url: str) -> None:
    """Only s3://bucket/prefix opens S3; anything else says so."""
    with pytest.raises(SetupError, match="not of the form"):
        open_storage(url)
