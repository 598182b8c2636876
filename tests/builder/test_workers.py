"""The processes that build: real ones, started and ended here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mishards.builder.jobs import write_index
from mishards.builder.pool import Pool
from mishards.builder.worker import NICENESS, frame, read_frame
from mishards.builder.workers import Workers
from mishards.errors import Kind, MishardsError
from mishards.index.hnsw import Hnsw
from mishards.model import FieldId, Index, IndexId


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(1, Pool(1))
    yield made
    await made.stop()


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_jobs_run_elsewhere_at_low_priority_one_process_after_the_other(workers: Workers) -> None:
    """A job runs in another process, whose niceness is low; the next one finds the same process."""
    pid = await workers.run(os.getpid)

    assert pid != os.getpid()
    assert await workers.run(os.getpriority, os.PRIO_PROCESS, 0) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    assert await workers.run(os.getpid) == pid


async def test_an_index_is_built_in_another_process(workers: Workers, tmp_path: Path) -> None:
    """What a job writes lies where it was told to."""
    source, target = tmp_path / "vectors", tmp_path / "index"
    source.write_bytes(np.random.default_rng(1).standard_normal((200, 4)).astype(np.float32).tobytes())
    definition = Index(id=IndexId(1), name="i", field_id=FieldId(102), type="HNSW", metric="L2")

    size = await workers.run(write_index, Hnsw(), definition, (200, 1, 0), 4, source, 1, target)

    assert size == target.stat().st_size


async def test_what_goes_wrong_is_raised_here(workers: Workers) -> None:
    """A failure of the job is one of the caller's, and the process goes on."""
    pid = await workers.run(os.getpid)

    with pytest.raises(MishardsError, match="FileNotFoundError") as raised:
        await workers.run(os.stat, "/nothing/here")

    assert raised.value.kind is Kind.INTERNAL
    assert await workers.run(os.getpid) == pid


async def test_a_process_that_is_killed_is_replaced(workers: Workers) -> None:
    """The job that ran in it fails, as it may have been too large; the next one gets another process."""
    pid = await workers.run(os.getpid)

    with pytest.raises(MishardsError, match="ended with status -9"):
        await workers.run(os.kill, pid, signal.SIGKILL)

    assert await workers.run(os.getpid) != pid


async def test_a_job_that_is_cancelled_ends_with_its_process(workers: Workers) -> None:
    """A build that nobody wants any more takes no core from anybody."""
    pid = await workers.run(os.getpid)
    job = asyncio.create_task(workers.run(signal.pause))
    await asyncio.sleep(0)

    job.cancel()
    with suppress(asyncio.CancelledError):
        await job

    assert ended(pid)


async def test_idle_processes_end_at_a_stop() -> None:
    """Nothing is left behind."""
    workers = Workers(1, Pool(1))
    pid = await workers.run(os.getpid)

    await workers.stop()

    assert ended(pid)


async def test_without_processes_a_thread_builds() -> None:
    """A count of 0 means threads of this process."""
    assert await Workers(0, Pool(1)).run(os.getpid) == os.getpid()


def test_an_answer_that_nobody_reads_any_more_is_no_error() -> None:
    """A process whose parent is killed amid a job ends without a word in the parent's log."""
    pipe, command = subprocess.PIPE, (sys.executable, "-m", "mishards.builder.worker")
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr
        assert read_frame(process.stdout)
        process.stdout.close()
        process.stdin.write(frame((time.sleep, (0.0,))))
        process.stdin.flush()
        time.sleep(0.5)  # the answer has been written by then
        process.stdin.close()

        assert process.stderr.read() == b""
        assert process.wait(10) == 0
