"""The local data directory: one owner at a time, of a format that this program knows.

`{data}/LOCK` is locked for as long as its owner lives (the lock ends with the process, however it ends) and names it;
`{data}/FORMAT` holds the number of the format. A standalone server owns its directory, `mishards cluster` that of its
nodes, which check the format only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mishards.errors import SetupError

FORMAT = 1


@contextmanager
def claim_data_dir(path: Path, owner: str) -> Iterator[None]:
    """Own the directory, made if missing, while the context lasts. `owner` is what others are told.

    SetupError: in use by another process, of a newer format, or not usable.
    """
    check_format(path)
    with _usable(path):
        descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with _usable(path):
            _lock(descriptor, path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {owner}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def check_format(path: Path) -> None:
    """Make the directory if it is missing and mark it with this program's format; SetupError if it has a newer one."""
    file = path / "FORMAT"
    with _usable(path):
        path.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            fresh = path / f"FORMAT.{os.getpid()}"
            fresh.write_text(f"{FORMAT}\n")
            fresh.replace(file)  # complete or absent, also when several nodes start at once
        text = file.read_text(errors="replace").strip()
    if not text.isdecimal():
        raise SetupError(f"{file} holds {text[:40]!r}, not a format number")
    if int(text) > FORMAT:
        raise SetupError(f"data format {text} is newer than this program's {FORMAT} ({path})")


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, owner = os.pread(descriptor, 256, 0).decode(errors="replace").strip().partition(" ")
        raise SetupError(f"data directory {path} is in use by pid {pid or '?'} ({owner or 'starting'})") from None


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(f"data directory {path} cannot be used: {error.strerror}") from error
