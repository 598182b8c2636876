"""Results whose rows travel in a second step, and how large results may be (P15, P17)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mishards.clock import SystemClock
from mishards.errors import Kind
from mishards.metadata.manifest import Manifest
from mishards.model import FieldId, Index, IndexId, NodeId, Version
from mishards.proxy.plan import Plan
from mishards.proxy.querying import Querying
from mishards.proxy.reading import Reached
from mishards.proxy.requests import QueryRequest, SearchRequest, SearchResult
from mishards.proxy.scatter import PartAnswer
from mishards.proxy.searching import Searching
from mishards.segment.ipc import to_stream
from mishards.testing.metadata_records import a_collection, a_file, refused
from mishards.wire.hits import Hits, pack
from mishards.wire.messages import FetchPart, FetchRows, QueryRows

NOTHING = memoryview(b"")
INDEX = Index(id=IndexId(7), name="vector", field_id=FieldId(101), type="FLAT", metric="L2")


class AnyIndex:
    def check_search(self, params: Any, k: int) -> None:
        pass


class FakeReader:
    """Holds rows whose key is `10 * position + number`, in a file named like the reader."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = asyncio.Event()
        self.others: Sequence[FakeReader] = ()  # asked, too, before this one answers

    def found(self, *scores: float) -> Any:
        positions = np.arange(len(scores), dtype=np.int64)
        hits = Hits(
            queries=np.zeros(len(scores), np.int32),
            scores=np.array(scores, np.float32),
            keys=self.keys(positions),
            files=np.full(len(scores), self.number, np.int64),
            positions=positions,
            sources=np.zeros(len(scores), np.int32),
            rows=positions,
        )
        return pack(hits, np.array([len(scores)], np.int32), NOTHING, False, len(scores), 0)

    def keys(self, positions: Any) -> Any:
        return 10 * positions + self.number

    async def fetch(self, request: FetchPart) -> FetchRows:
        self.asked.set()
        for other in self.others:
            await other.asked.wait()
        assert set(np.frombuffer(request.files, np.int64)) == {self.number}
        keys = self.keys(np.frombuffer(request.positions, np.int64))
        return FetchRows(to_stream(pa.record_batch({"100": pa.array(keys)})))


class FakeReadPath:
    """One plan over two readers with these answers; it is its own scatter."""

    def __init__(self, readers: Sequence[FakeReader], answers: Sequence[Any]) -> None:
        self._readers = readers
        self._answers = answers
        self.scatter = self

    async def reach(self, request: Any) -> Reached:
        return Reached(Manifest(a_collection(loaded=True, indexes=(INDEX,))), 10.0)

    def using(self, manifest: Manifest) -> AbstractContextManager[None]:
        return nullcontext()

    async def ask(self, request: Any, reached: Reached, ask: Any) -> tuple[Plan, list[PartAnswer[Any]]]:
        parts = [PartAnswer(NodeId(str(number)), answer) for number, answer in enumerate(self._answers)]
        return Plan(Version(1), {}, (a_file(1),)), parts

    async def ask_one(self, nodes: Sequence[NodeId], ask: Any, deadline_s: float) -> Any:
        return await ask(self._readers[int(nodes[0])], 1.0)


async def searched(*scores: Sequence[float], limit: int = 10, bytes_max: int = 1 << 20) -> SearchResult:
    """A search whose readers find these; rows never travel with the hits."""
    readers = [FakeReader(number) for number in range(len(scores))]
    for reader in readers:
        reader.others = [other for other, some in zip(readers, scores, strict=True) if some and other is not reader]
    path: Any = FakeReadPath(readers, [reader.found(*some) for reader, some in zip(readers, scores, strict=True)])
    searching = Searching(path, lambda name: AnyIndex(), SystemClock(), 0, bytes_max)  # type: ignore[arg-type,return-value]
    queries = np.zeros((1, 8), np.float32)
    return await searching.search(SearchRequest(collection="books", queries=queries, limit=limit, output=("id",)))


@pytest.mark.parametrize("scores", [([1.0, 3.0], [2.0, 4.0]), ([], [1.0, 2.0]), ([1.0], [], [0.5, 2.0])])
async def test_rows_fetched_later_stand_beside_their_hits(scores: Sequence[Sequence[float]]) -> None:
    """Whichever readers found them; those are asked side by side (each answers only when the others are asked)."""
    async with asyncio.timeout(5):
        result = await searched(*scores)

    assert result.scores.tolist() == sorted(score for some in scores for score in some)
    assert result.rows is not None
    assert result.rows.column(0).to_pylist() == list(result.keys)


async def test_without_hits_nobody_is_asked_for_rows() -> None:
    """The columns are there all the same."""
    result = await searched([], [])

    assert result.rows is not None
    assert (result.rows.num_rows, result.rows.schema.names) == (0, ["100"])


async def test_a_result_has_a_limit() -> None:
    """All readers' rows together, in searches and queries alike."""
    one = len(to_stream(pa.record_batch({"100": pa.array([1])})))
    assert (await searched([1.0], [2.0], bytes_max=2 * one)).rows is not None
    await refused(Kind.PARAMETER_TOO_LARGE, searched([1.0], [2.0], bytes_max=2 * one - 1))

    rows = to_stream(pa.record_batch({"100": pa.array([1])}))
    path: Any = FakeReadPath([], [QueryRows(rows, 0, 1, 0)] * 2)
    asked = QueryRequest(collection="books", filter="id > 0", output=("id",))
    assert (await Querying(path, 2 * one).query(asked)).count == 2
    await refused(Kind.PARAMETER_TOO_LARGE, Querying(path, 2 * one - 1).query(asked))
