"""A process that builds: does one job after the other at low priority, and ends when its parent does.

    stdin: length, pickled (function, arguments)        stdout: length, pickled answer: at first READY

Searches of the same machine come first: whoever wakes up takes the core from it at once, and against one that never
sleeps it gets about a tenth of a core, so that building goes on. stdin ends with the parent, whatever ended that.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from mishards.errors import Kind, MishardsError

LENGTH_BYTES = 8
READY = "ready"
NICENESS = 10  # a weight of 110 against the usual 1024; 19 has 15, next to nothing where searches keep all cores busy


def main() -> None:
    """Serve until stdin ends."""
    _take_low_priority()  # before any library makes threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print goes nowhere near the answers
    answers.write(frame(READY))
    answers.flush()
    jobs: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_work, args=(jobs, answers), daemon=True).start()
    while job := read_frame(sys.stdin.buffer):
        jobs.put(job)
    os._exit(0)  # a job under way is of no use any more


def frame(content: object) -> bytes:
    pickled = pickle.dumps(content)
    return len(pickled).to_bytes(LENGTH_BYTES) + pickled


def read_frame(stream: BinaryIO) -> bytes:
    """The next one, without its length; empty at the end."""
    length = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(length)) if len(length) == LENGTH_BYTES else b""


def _take_low_priority() -> None:
    os.nice(NICENESS)
    if hasattr(os, "sched_setscheduler"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # takes no core from those who run


def _work(jobs: SimpleQueue[bytes], answers: BinaryIO) -> None:
    with suppress(BrokenPipeError):  # the parent has ended amid the job, and so does this process
        while True:
            answers.write(_answer(jobs.get()))
            answers.flush()


def _answer(job: bytes) -> bytes:
    """(None, result), or the kind and the text of what went wrong."""
    try:
        function, arguments = _loaded(job)
        return frame((None, function(*arguments)))
    except MishardsError as error:
        return frame((error.kind.name, error.message))
    except Exception as error:
        return frame((Kind.INTERNAL.name, repr(error)))


def _loaded(job: bytes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    function, arguments = pickle.loads(job)
    return function, arguments


if __name__ == "__main__":
    main()
