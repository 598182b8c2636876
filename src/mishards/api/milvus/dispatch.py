"""From a method's name and request bytes to response bytes: no failure leaves as anything but a Status.

pymilvus retries gRPC UNKNOWN and INTERNAL 75 times over minutes, so an exception that escaped would hang its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from mishards.api.milvus.calls import DEFAULT_TIMEOUT_S, Call, Table
from mishards.api.milvus.rpcs import Rpc, rpcs, unimplemented
from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DEFAULT_DATABASE

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Answers calls with the handlers of `table`; methods without one are answered "service unimplemented"."""

    def __init__(self, table: Table, request_bytes_max: int) -> None:
        self._table = table
        self._request_bytes_max = request_bytes_max
        self._rpcs = rpcs()
        unknown = sorted(table.keys() - self._rpcs.keys())
        if unknown:
            raise ValueError(f"not methods of the Milvus service: {', '.join(unknown)}")

    @property
    def methods(self) -> list[str]:
        return list(self._rpcs)

    async def answer(self, method: str, payload: bytes, metadata: Mapping[str, str], timeout_s: float | None) -> bytes:
        """The response. Raises nothing but CancelledError."""
        rpc = self._rpcs[method]
        try:
            response = await self._handle(rpc, payload, metadata, timeout_s)
            # Parsing and serialising stay on the loop: protobuf holds the interpreter's lock, a thread gains nothing.
            return bytes(rpc.success(response).SerializeToString())
        except MishardsError as error:
            failure = rpc.failure(error)
        except DecodeError as error:
            failure = rpc.failure(invalid(f"the request of {method} is not a valid message: {error}"))
        except Exception as error:
            _log.exception("milvus call failed", method=method)
            text = f"internal error in {method}: {type(error).__name__}: {error}"
            failure = rpc.failure(MishardsError(Kind.INTERNAL, text))
        return bytes(failure.SerializeToString())

    async def _handle(self, rpc: Rpc, payload: bytes, metadata: Mapping[str, str], timeout_s: float | None) -> Any:
        handler = self._table.get(rpc.name)
        if handler is None:
            raise unimplemented(rpc.name)
        if len(payload) > self._request_bytes_max:
            raise MishardsError(
                Kind.PARAMETER_TOO_LARGE,
                f"request of {len(payload)} bytes is larger than the limit of {self._request_bytes_max} bytes "
                "(proxy.request_bytes_max)",
            )
        request = rpc.request.FromString(payload)
        database = _database(request, metadata)
        if database != DEFAULT_DATABASE:
            raise MishardsError(Kind.DATABASE_NOT_FOUND, f"database not found[database={database}]")
        timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        return await handler(request, Call(database, metadata, len(payload), timeout_s))


def _database(request: Any, metadata: Mapping[str, str]) -> str:
    """The database of a call: pymilvus names it in the metadata, other clients in the request."""
    named = getattr(request, "db_name", "") or getattr(request, "dbName", "")
    return named or metadata.get("dbname", "") or DEFAULT_DATABASE
