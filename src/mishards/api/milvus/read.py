"""Calls that read: search and query."""

from __future__ import annotations

from typing import Any

from mishards.api.milvus.calls import Call, Table, Workers
from mishards.api.milvus.translate_read import query_request, query_results, search_request, search_results
from mishards.errors import Kind, MishardsError
from mishards.proxy.requests import ProxyService


class ReadCalls:
    def __init__(self, proxy: ProxyService, workers: Workers) -> None:
        self._proxy = proxy
        self._workers = workers

    def table(self) -> Table:
        return {"Search": self.search, "HybridSearch": self.hybrid_search, "Query": self.query}

    async def search(self, request: Any, call: Call) -> Any:
        wanted = await self._workers.run(call.bytes, search_request, request, call)
        found = await self._proxy.search(wanted)
        bytes = found.scores.nbytes + (found.rows.nbytes if found.rows is not None else 0)
        return await self._workers.run(bytes, search_results, wanted, found)

    async def hybrid_search(self, request: Any, call: Call) -> Any:
        raise MishardsError(Kind.UNSUPPORTED, "hybrid search is not supported")

    async def query(self, request: Any, call: Call) -> Any:
        found = await self._proxy.query(query_request(request, call))
        bytes = found.rows.nbytes if found.rows is not None else 0
        return await self._workers.run(bytes, query_results, found)
