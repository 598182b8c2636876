"""The proxy's face: a read of a collection that is dropped and made anew meanwhile (I6, I7)."""

from __future__ import annotations

from typing import Any

from test_catalog import FakeMirror

from mishards.clock import FakeClock
from mishards.config import ProxySettings
from mishards.errors import Kind, MishardsError, collection_not_found
from mishards.proxy.node import ProxyNode
from mishards.proxy.requests import QueryRequest, QueryResult
from mishards.testing.metadata_records import a_collection, refused

ANSWER = QueryResult(collection=a_collection(), output=(), rows=None, count=3, ts=5)


class Case:
    """Reads that end with these errors, one a read, or with an answer."""

    def __init__(self, *failures: MishardsError) -> None:
        self.clock = FakeClock()
        self.mirror = FakeMirror()
        mirror: Any = self.mirror
        none: Any = None
        self.node = ProxyNode(mirror, none, none, none, none, none, none, none, ProxySettings(), self.clock)
        self.timeouts_s: list[float] = []
        self._failures = list(failures)

    async def ask(self) -> QueryResult:
        return await self.node._read(QueryRequest(collection="books", timeout_s=10.0), self._read)

    async def _read(self, request: QueryRequest) -> QueryResult:
        self.timeouts_s.append(request.timeout_s)
        self.clock.advance(4.0)
        if self._failures:
            raise self._failures.pop(0)
        return ANSWER


def gone() -> MishardsError:
    return collection_not_found("books")


async def test_a_read_of_a_dropped_collection_is_asked_of_its_successor() -> None:
    """Once, in the time that is left."""
    case = Case(gone())
    case.mirror.put(id=2)
    assert await case.ask() is ANSWER
    assert case.timeouts_s == [10.0, 6.0]

    case = Case(gone(), gone())
    case.mirror.put(id=2)
    await refused(Kind.COLLECTION_NOT_FOUND, case.ask())


async def test_other_reads_are_asked_once() -> None:
    """Nothing has the name, or something else went wrong."""
    for failure in (gone(), MishardsError(Kind.DEADLINE, "late")):
        case = Case(failure)
        if failure.kind is Kind.DEADLINE:
            case.mirror.put()
        await refused(failure.kind, case.ask())
        assert case.timeouts_s == [10.0]
