"""The Milvus door's transport: grpcio's asyncio server, passing bytes to and from the dispatcher."""

from __future__ import annotations

import socket
from typing import Any, Final

import grpc

from mishards.api.milvus.dispatch import Dispatcher
from mishards.api.milvus.rpcs import SERVICE
from mishards.errors import SetupError

_RECEIVE_FACTOR: Final = 4  # grpcio refuses above it; between it and the limit the dispatcher answers a clear Status
_INT32_MAX: Final = (1 << 31) - 1


class GrpcTransport:
    """A listening gRPC server. `share_port`: several processes may listen on the port; the kernel spreads clients."""

    def __init__(self, dispatcher: Dispatcher, request_bytes_max: int, *, share_port: bool) -> None:
        self._dispatcher = dispatcher
        self._share_port = share_port
        self._options = _options(request_bytes_max, share_port)
        self._server: Any = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port (`port` 0: a free one). SetupError when it is taken."""
        _check_free(host, port, share=self._share_port)
        self._server = grpc.aio.server(options=self._options)
        methods = {name: self._method(name) for name in self._dispatcher.methods}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise SetupError(f"cannot listen on {address}: the address is in use or not this machine's") from error
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Close the port at once, give calls in progress `grace_s`.

        Clients are told to go away. Their next call finds another proxy on the address or is UNAVAILABLE, on which they
        connect again; one that crosses the news is CANCELLED, untouched, and tried again.
        """
        if self._server is not None:
            await self._server.stop(grace_s)

    def _method(self, name: str) -> Any:
        async def behaviour(payload: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            return await self._dispatcher.answer(name, payload, metadata, context.time_remaining())

        return grpc.unary_unary_rpc_method_handler(behaviour)


def _check_free(host: str, port: int, *, share: bool) -> None:
    """Bind once before grpcio does, which tells a taken port in several lines of its own."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if share else socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _options(request_bytes_max: int, share_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", min(_RECEIVE_FACTOR * request_bytes_max, _INT32_MAX)),
        ("grpc.max_send_message_length", -1),
        # pymilvus pings every 10 s, also without calls
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
