"""A standalone server in a background thread of another program: `mishards.start`, for notebooks and tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
import uvloop

from mishards import config
from mishards.clock import SystemClock
from mishards.config import Settings
from mishards.server.node import Server
from mishards.telemetry.logging import set_up


class Running:
    """A standalone server in a background thread; a context manager with `.uri`."""

    def __init__(self, settings: Settings) -> None:
        if not structlog.is_configured():  # the host program's own set-up stays
            set_up(settings.log_level)
        self.uri = ""
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mishards", daemon=True)
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Drain and stop; idempotent."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._settings, SystemClock())
        await server.start()
        self.uri = server.uri
        self._up.set()
        await self._stop.wait()
        await server.stop()


def start(data_dir: str | Path = "./mishards-data", **settings: Any) -> Running:
    """A standalone server over `data_dir` on a free port, for notebooks and tests:

    >>> with mishards.start("./data") as server:
    ...     client = MilvusClient(server.uri)
    """
    values = {"data": str(data_dir), "port": 0, "http_port": 0, "log_level": "warning", **settings}
    return Running(config.load(None, {}, values).settings)
