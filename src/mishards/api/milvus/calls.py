"""What a handler of the Milvus door gets beside the request, and the table that names the handlers.

Handlers know protobuf messages and the proxy, but no transport (P18).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

_T = TypeVar("_T")

DEFAULT_TIMEOUT_S: Final = 60.0  # of a call whose client sets no deadline
_INLINE_BYTES_MAX: Final = 64 * 1024  # translated in about a millisecond


class Call(NamedTuple):
    """One call. `timeout_s` is what remains until the client's deadline."""

    database: str
    metadata: Mapping[str, str]
    bytes: int  # of the request
    timeout_s: float = DEFAULT_TIMEOUT_S


Handler = Callable[[Any, Call], Awaitable[Any]]  # protobuf request -> protobuf response; may raise MishardsError
Table = dict[str, Handler]  # by method name


class Workers:
    """A few threads for translating large payloads, so that the loop keeps turning."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="milvus-door")

    async def run(self, bytes: int, work: Callable[..., _T], *args: Any) -> _T:
        """The result of `work(*args)` on that many bytes; small work is done at once."""
        if bytes <= _INLINE_BYTES_MAX:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
