"""The read path: plan, ask, and plan again when the world has moved (P7, P11, I6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peers as p
import pytest

from mishards.clock import FakeClock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import Consistency, File, FileKind, Partition, PartitionId, Version
from mishards.proxy.catalog import Catalog
from mishards.proxy.readers import Readers
from mishards.proxy.reading import ReadPath
from mishards.proxy.requests import QueryRequest
from mishards.proxy.scatter import Scatter
from mishards.proxy.versions import Versions
from mishards.testing.metadata_records import a_collection
from mishards.wire.messages import QueryPart, QueryRows
from mishards.wire.placement import Placement


class FakeRouter:
    def place(self, members: Any, items: Any, replicas: int) -> dict[str, tuple[str, ...]]:
        return {item.key: tuple(member.id for member in members)[:replicas] for item in items}


class FakeMirror:
    def __init__(self, clock: FakeClock, manifest: Manifest) -> None:
        self.observed_s = clock.monotonic_s()
        self.lost = False
        self.named = {"books": manifest}
        self.news: Callable[[], None] = lambda: None

    def find(self, database: str, name: str) -> Manifest | None:
        return self.named.get(name)

    def get(self, collection_id: int) -> Manifest | None:
        return next((m for m in self.named.values() if m.collection.id == collection_id), None)

    async def refresh(self) -> None:
        self.news()


class Case:
    """One collection, one reader that has whatever is not in `missing`."""

    def __init__(self, *files: File) -> None:
        self.clock = FakeClock()
        self.manifest = manifest_of(*files)
        self.mirror = FakeMirror(self.clock, self.manifest)
        self.reader = p.FakeReader("a")
        self.missing: set[int] = set()
        self.reader.behave = self._behave
        self.membership = p.FakeMembership(p.member("a"))
        parts: list[Any] = [self.membership, p.FakePeers(a=self.reader)]
        self.readers = Readers(parts[0], parts[1], self.clock, 30.0)
        mirror: Any = self.mirror
        router: Any = FakeRouter()
        telling: Any = p.FakeTelling()
        self.path = ReadPath(
            Catalog(mirror),
            Versions(mirror, self.clock, 5.0),
            self.readers,
            Scatter(self.readers, parts[1], telling, self.clock, 0.1, 0.05),
            parts[0],
            Placement(router),
            self.clock,
        )

    async def _behave(self, files: tuple[int, ...]) -> None:
        gone = self.missing.intersection(files)
        if gone:
            raise MishardsError(Kind.GONE, f"files {sorted(gone)} are not known here")

    def ready(self, *files: int) -> None:
        """What the reader has told it holds."""
        self.readers._ready["a"] = {1: frozenset(files)}  # type: ignore[index,arg-type]
        self.readers.epoch += 1

    async def ask(self, **changes: Any) -> set[int]:
        """The files of the plan that was answered."""
        request = QueryRequest(collection="books", **changes)
        reached = await self.path.reach(request)

        async def ask(reader: Any, plan: Any, files: tuple[int, ...], left_s: float) -> QueryRows:
            answer: QueryRows = await reader.query(QueryPart(1, plan.version, files))
            return answer

        plan, _ = await self.path.ask(request, reached, ask)
        return {file.id for file in plan.files}


def manifest_of(*files: File, **changes: Any) -> Manifest:
    collection = a_collection(loaded=True, partitions=(Partition(PartitionId(5), "_default", 1),), **changes)
    manifest = Manifest(collection, files={file.id: file for file in files})
    known_from_the_start = any(file.kind is FileKind.ROWS for file in files)
    manifest.oldest = Version(0 if known_from_the_start else min((file.added for file in files), default=0))
    manifest.version = Version(max((max(file.added, file.removed) for file in files), default=0))
    manifest.layout = Version(max((max(f.added, f.removed) for f in files if f.kind is FileKind.SEGMENT), default=0))
    return manifest


async def test_a_new_segment_is_used_when_a_reader_has_it() -> None:
    """Until then the files that it was made of go on serving (P11)."""
    case = Case(p.fresh(1, added=1, removed=2), p.segment(2, added=2))

    assert await case.ask() == {1}
    case.ready(2)
    assert await case.ask() == {2}


async def test_when_the_old_files_are_gone_the_new_ones_are_used_ready_or_not() -> None:
    """Readers that joined after a flush never knew its inputs: the newest layout always exists, and they load it on
    demand. Planning the old one again and again would fail every search until the segment is ready (I6)."""
    case = Case(p.fresh(1, added=1, removed=2), p.segment(2, added=2))
    case.missing = {1}

    assert await case.ask() == {2}


async def test_an_unready_shard_does_not_hold_back_the_others() -> None:
    """The switch-over is decided by shard (P11)."""
    case = Case(
        p.fresh(1, added=1, removed=3, shard=0),
        p.segment(2, added=3, shard=0),
        p.fresh(11, added=2, removed=4, shard=1),
        p.segment(12, added=4, shard=1),
    )
    case.manifest.collection = manifest_of(shards=2).collection
    case.ready(12)

    assert await case.ask() == {1, 12}


async def test_a_missing_file_is_planned_around_with_fresher_metadata() -> None:
    """The reader knew of a merge before this proxy did."""
    case = Case(p.segment(1, added=1), p.segment(2, added=1))
    case.missing = {1, 2}

    def merged() -> None:
        case.mirror.named["books"].files.clear()
        case.manifest.files[3] = p.segment(3, added=2)  # type: ignore[index]
        case.manifest.version = case.manifest.layout = case.manifest.oldest = Version(2)

    case.mirror.news = merged

    assert await case.ask() == {3}


async def test_a_file_that_stays_missing_ends_in_a_retryable_error() -> None:
    """That names it."""
    case = Case(p.segment(1, added=1))
    case.missing = {1}

    with pytest.raises(MishardsError, match=r"files \[1\] are not known here") as caught:
        await case.ask()
    assert caught.value.retryable


async def test_strong_reads_what_the_name_means_now() -> None:
    """A collection that was dropped and made anew, or an alias that moved, before the search arrived (I7)."""
    case = Case(p.segment(1, added=1))
    anew = manifest_of(p.segment(7, added=1), id=2)
    case.mirror.news = lambda: case.mirror.named.update(books=anew)

    assert await case.ask(consistency=Consistency.STRONG) == {7}


async def test_what_does_not_change_is_planned_once() -> None:
    """P18: the second search finds its plan; news make another one."""
    case = Case(p.segment(1, added=1))
    case.ready(1)
    request = QueryRequest(collection="books")
    first, _ = case.path._plan(request, case.manifest)
    assert case.path._plan(request, case.manifest)[0] is first

    case.manifest.files[2] = p.fresh(2, added=2)  # type: ignore[index]
    case.manifest.version = Version(2)
    assert await case.ask() == {1, 2}


async def test_a_change_of_members_moves_the_files_of_a_kept_plan() -> None:
    """A file is looked for where it belongs now (P16)."""
    case = Case(p.segment(1, added=1))
    case.ready(1)
    request = QueryRequest(collection="books")
    _, before = case.path._plan(request, case.manifest)

    case.membership.set(p.member("b"))
    _, after = case.path._plan(request, case.manifest)

    assert [*before.nodes.values()] == [("a",)] * len(before.nodes)
    assert [*after.nodes.values()] == [("b",)] * len(after.nodes)


async def test_layouts_in_use() -> None:
    """While a request is under way the oldest layout that its plans may use is told, and no longer (P12)."""
    case = Case(p.fresh(1, added=1, removed=2), p.segment(2, added=2))
    case.manifest.oldest = Version(1)

    with case.path.using(case.manifest), case.path.using(case.manifest):
        case.manifest.oldest = Version(2)
        with case.path.using(case.manifest):
            assert case.path.layouts_in_use() == {case.manifest.collection.id: 1}

    assert case.path.layouts_in_use() == {}


async def test_a_plan_says_of_which_chain_it_is() -> None:
    """Also when the metadata service has lost commits and others have got their numbers: the plan is another one."""
    case = Case(p.fresh(1, added=1))
    asked: list[tuple[Version, str]] = []

    async def ask(reader: Any, plan: Any, files: tuple[int, ...], left_s: float) -> QueryRows:
        asked.append((plan.version, plan.head))
        answer: QueryRows = await reader.query(QueryPart(1, plan.version, files))
        return answer

    for head in ("lost", "lost", "new"):
        case.manifest.head = head
        request = QueryRequest(collection="books")
        await case.path.ask(request, await case.path.reach(request), ask)

    assert asked == [(1, "lost"), (1, "lost"), (1, "new")]
