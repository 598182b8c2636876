"""The demo tells its story to the end, or ends at once and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import run_mishards

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]


def test_demo() -> None:
    """`mishards demo` answers its questions from segments spread over the readers, no query fails while a reader is
    killed, 80 columns are enough, exit 0."""
    done = run_mishards("demo", timeout_s=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "play chess against the computer" in done.stdout
    assert "kill -9" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    recall = float(next(line for line in done.stdout.splitlines() if "exact NumPy" in line).split(":")[-1])
    assert recall >= 0.95
    before, after = done.stdout.split("Who holds what")[1:]
    assert before.count("HNSW") == after.count("HNSW") == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo(tmp_path: Path, number: signal.Signals) -> None:
    """A demo that is interrupted ends its cluster, removes its folder, and exits with 130 without a traceback."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "mishards", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Load" in line:
            break

    demo.send_signal(number)
    said, errors = demo.communicate(timeout=30)

    assert demo.returncode == 130
    assert said.endswith("Interrupted.\n")
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())
