"""Storage over S3's protocol, against a server in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import s3
from mishards.ports import Storage
from mishards.testing.storage_suite import StorageSuite

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    yield from s3.serving()


class TestS3Storage(StorageSuite):
    """A bucket, a prefix for each test."""

    @pytest.fixture
    def storage(self, endpoint: str) -> Storage:
        return s3.storage_at(endpoint, f"test{next(_numbers)}")
