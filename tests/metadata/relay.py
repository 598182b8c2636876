"""A TCP relay between a client and a server that cuts a connection at what the client says."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """`cut_at`: the next chunk from a client with this pattern ends its connection, once. `after`: the server still
    gets that chunk and acts on it, but its answer is lost."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cut_at: re.Pattern[bytes] | None = None
        self.after = False
        self.cuts = 0
        self._server_port = port

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        answers = asyncio.create_task(_pump(server_reader, writer))
        try:
            while chunk := await reader.read(1 << 16):
                if self.cut_at and self.cut_at.search(chunk):
                    self.cut_at = None
                    self.cuts += 1
                    if self.after:
                        answers.cancel()
                        await asyncio.wait({answers})
                        server_writer.write(chunk)
                        await server_reader.read(1)  # it is done
                    break
                server_writer.write(chunk)
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            server_writer.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
    writer.close()


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    relay = Relay(port)
    server = await asyncio.start_server(relay.handle, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await server.wait_closed()
