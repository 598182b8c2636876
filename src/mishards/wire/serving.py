"""The answering end of the wire: every request becomes a task that calls a service of this process, but for those that
the service answers at once: most searches. A task and its timer cost as much as such a search takes Python (P18).

A request's task ends with its answer, its deadline, its caller's cancel frame or the loss of the connection, whichever
comes first. No exception escapes: MishardsError travels as it is, anything else becomes INTERNAL and is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import structlog

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError, SetupError
from mishards.wire.connection import Connection
from mishards.wire.frames import CODECS, FRAME_BYTES_MAX, Frame, FrameKind, encode_frame, error_body
from mishards.wire.services import Method

REQUESTS_MAX = 4096  # in progress on one connection; more are refused (P15)

_log = structlog.get_logger(__name__)

_Tasks = dict[int, asyncio.Task[None]]  # by request id


class _Request(NamedTuple):
    frame: Frame
    method: Method
    service: object
    message: Any


class WireServer:
    """Serves `services` (by the service names of `METHODS`) to other processes."""

    def __init__(
        self,
        services: Mapping[str, object],
        clock: Clock,
        *,
        body_bytes_max: int = FRAME_BYTES_MAX,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self._services = services
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._requests_max = requests_max
        self._servers: list[asyncio.Server] = []
        self._tasks: dict[Connection, _Tasks] = {}
        self._dying: set[asyncio.Task[None]] = set()  # cancelled, to be awaited
        self._stopping = False

    async def start(self, host: str, port: int) -> str:
        """Listen; the address for others, "tcp://host:port" with the real port. SetupError when it is taken."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._connection, host, port)
        except OSError as error:
            raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._servers.append(server)
        shown_host = f"[{host}]" if ":" in host else host
        return f"tcp://{shown_host}:{server.sockets[0].getsockname()[1]}"

    async def start_unix(self, path: str) -> str:
        """Listen on a unix socket as well; its address, "unix:///path"."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._connection, path))
        return f"unix://{path}"

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, give those in progress `grace_s`, then cancel them and close every connection."""
        self._stopping = True
        for server in self._servers:
            server.close()
        running = self._running()
        if running:
            await asyncio.wait(running, timeout=grace_s)
        running = self._running()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *self._dying, return_exceptions=True)
        for connection in list(self._tasks):
            connection.close()
        for server in self._servers:
            await server.wait_closed()

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for tasks in self._tasks.values() for task in tasks.values()]

    # -------------------------------------------------------------------------------------------- one connection

    def _connection(self) -> Connection:
        return Connection(self._on_frame, self._on_lost, self._body_bytes_max, self._on_made)

    def _on_made(self, connection: Connection) -> None:
        self._tasks[connection] = {}

    def _on_lost(self, connection: Connection, reason: str) -> None:
        for task in self._tasks.pop(connection).values():
            self._cancel(task)
        _log.debug("wire connection over", reason=reason)

    def _on_frame(self, connection: Connection, frame: Frame) -> None:
        tasks = self._tasks[connection]
        if frame.kind == FrameKind.CANCEL:
            if (task := tasks.pop(frame.request_id, None)) is not None:
                self._cancel(task)
            return
        if frame.kind != FrameKind.REQUEST or frame.request_id in tasks:
            connection.abort(f"unexpected frame of kind {frame.kind} for request {frame.request_id}")
            return
        try:
            self._check_room(tasks)
            request = self._request_of(frame)
        except MishardsError as error:
            connection.send(_error_frame(frame, error))
            return
        if not connection.clogged and (answer := self._answer_at_once(request)) is not None:
            connection.send(answer)
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection, tasks, request))
        tasks[frame.request_id] = task

    def _check_room(self, tasks: _Tasks) -> None:
        if self._stopping:
            raise MishardsError(Kind.UNAVAILABLE, "this node is stopping")
        if len(tasks) >= self._requests_max:
            raise MishardsError(
                Kind.RATE_LIMIT,
                f"{len(tasks)} requests in progress on one connection; the limit is {self._requests_max}",
            )

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._dying.add(task)
        task.add_done_callback(self._dying.discard)

    # ----------------------------------------------------------------------------------------------- one request

    def _request_of(self, frame: Frame) -> _Request:
        """UNIMPLEMENTED, UNAVAILABLE, PARAMETER_INVALID."""
        codec = CODECS.get(frame.method)
        if codec is None:
            raise MishardsError(Kind.UNIMPLEMENTED, f"method {frame.method} is unknown to this node")
        method = codec.method
        service = self._services.get(method.service)
        if service is None:
            raise MishardsError(Kind.UNAVAILABLE, f"this node is no {method.service}")
        try:
            return _Request(frame, method, service, codec.request.decode(frame.body))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise MishardsError(Kind.PARAMETER_INVALID, f"unreadable {method.name} request: {error}") from error

    def _answer_at_once(self, request: _Request) -> bytearray | None:
        at_once = getattr(request.service, request.method.at_once, None) if request.method.at_once else None
        if at_once is None:
            return None
        try:
            reply = at_once(request.message)
            return None if reply is None else self._reply_frame(request, reply)
        except Exception as error:
            return self._failure_frame(request, error)

    async def _serve(self, connection: Connection, tasks: _Tasks, request: _Request) -> None:
        request_id = request.frame.request_id
        try:
            answer = await self._answer(request)
            await connection.writable()
            connection.send(answer)
        finally:
            if tasks.get(request_id) is asyncio.current_task():
                del tasks[request_id]

    async def _answer(self, request: _Request) -> bytearray:
        try:
            return self._reply_frame(request, await self._call(request))
        except Exception as error:
            return self._failure_frame(request, error)

    async def _call(self, request: _Request) -> Any:
        method = request.method
        deadline_s = request.frame.deadline_ms / 1000
        limit = asyncio.timeout(deadline_s)
        try:
            async with limit:
                return await getattr(request.service, method.name)(request.message)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise MishardsError(
                Kind.DEADLINE, f"{method.service}.{method.name} did not end within {deadline_s:g} s"
            ) from error

    def _reply_frame(self, request: _Request, reply: Any) -> bytearray:
        """PARAMETER_TOO_LARGE."""
        frame = request.frame
        return encode_frame(FrameKind.REPLY, frame.method, frame.request_id, reply, body_bytes_max=self._body_bytes_max)

    def _failure_frame(self, request: _Request, error: Exception) -> bytearray:
        known = error if isinstance(error, MishardsError) else self._internal(request.method, error)
        return _error_frame(request.frame, known)

    def _internal(self, method: Method, error: Exception) -> MishardsError:
        """INTERNAL with a name under which the log has the traceback."""
        incident = self._clock.token()[:8]
        name = f"{method.service}.{method.name}"
        _log.error("request failed", method=name, incident=incident, exc_info=error)
        return MishardsError(Kind.INTERNAL, f"{name} failed: {type(error).__name__}: {error} (incident {incident})")


def _error_frame(frame: Frame, error: MishardsError) -> bytearray:
    return encode_frame(FrameKind.ERROR, frame.method, frame.request_id, error_body(error))
