"""Serving as a program: until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

from mishards.clock import SystemClock
from mishards.config import Settings
from mishards.segment.ipc import keep_pandas_out
from mishards.server.node import Server


async def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` gets the ready line. SetupError when the server cannot start."""
    keep_pandas_out()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings, SystemClock())
    await server.start()
    gc.collect()
    gc.freeze()  # what lives as long as the program: passing over it again and again takes a tenth of a second
    ready(server.ready_line())
    await stop.wait()
    await server.stop()
