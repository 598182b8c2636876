"""What all tests share: this folder is importable (`from oracle import Oracle`), and logging starts unconfigured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_unconfigured() -> Iterator[None]:
    """A server started by one test must not decide what the next one can capture."""
    yield
    structlog.reset_defaults()
