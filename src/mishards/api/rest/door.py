"""The HTTP door: an ASGI application on a port of this process' event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from mishards.errors import SetupError

_GRACE_S: Final = 1  # for requests in progress when stopping


class HttpDoor:
    """Serves `app` with uvicorn, which leaves signals to the process."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port (`port` 0: a free one). SetupError when it is taken."""
        listener = _listener(host, port)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http-door")
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Close the port and end requests in progress within a second."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
