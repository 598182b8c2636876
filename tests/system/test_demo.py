"""The demo tells its story to the end."""

from __future__ import annotations

import pytest
from servers import run_mishards

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]


def test_demo() -> None:
    """`mishards demo` answers its questions, no query fails while a reader is killed, 80 columns are enough, exit 0."""
    done = run_mishards("demo", timeout_s=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "play chess against the computer" in done.stdout
    assert "kill -9" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    recall = float(next(line for line in done.stdout.splitlines() if "exact NumPy" in line).split(":")[-1])
    assert recall >= 0.95
