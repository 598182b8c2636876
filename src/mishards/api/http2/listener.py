"""The listening side: a port and the connections to it."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from mishards.api.http2.connection import Connection
from mishards.api.http2.service import Service
from mishards.errors import SetupError

_BACKLOG: Final = 1024  # connections that wait to be accepted


class Listener:
    """A port. `share_port`: several processes may listen on it; the kernel spreads clients."""

    def __init__(self, service: Service, *, share_port: bool) -> None:
        self._service = service
        self._share_port = share_port
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port (`port` 0: a free one). SetupError when it is taken."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection, host, port, reuse_port=self._share_port or None, backlog=_BACKLOG
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise SetupError(f"cannot listen on {host}:{port}: {reason}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float) -> None:
        """Close the port at once, tell clients to go elsewhere, give calls in progress `grace_s`.

        A client's next call finds another process on the address or is UNAVAILABLE, on which it connects again.
        """
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.go_away()
        try:
            async with asyncio.timeout(grace_s):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            pass
        tasks = [task for connection in self._connections for task in connection.tasks]
        for connection in list(self._connections):
            connection.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connection(self) -> Connection:
        connection = Connection(self._service, self._ended)
        self._connections.add(connection)
        return connection

    def _ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
