"""What searches and queries share: resolve, reach a version, plan, scatter, and plan again when the world has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mishards.clock import LOGICAL_BITS, Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.model import CollectionId, Consistency, File, FileKind, Version
from mishards.proxy.catalog import Catalog, readable_partitions
from mishards.proxy.plan import Plan, make_plan
from mishards.proxy.readers import Readers
from mishards.proxy.requests import Reading
from mishards.proxy.scatter import A, PartAnswer, Placed, ReplanError, Scatter
from mishards.proxy.versions import Versions
from mishards.schema.expiry import expired_ts
from mishards.wire.membership import Membership
from mishards.wire.placement import Placement
from mishards.wire.services import ReaderService

REPLANS_MAX = 5
MEMBER_WAIT_S = 5.0  # for the first reader to be known
PLANS_KEPT_MAX = 1024

Planned = tuple[Plan, Placed]
_Layout = tuple[CollectionId, Version]  # the oldest one that a request may use


def check_size(size: int, bytes_max: int) -> None:
    """Refuse a result that is too large to merge and send (P15)."""
    if size > bytes_max:
        raise MishardsError(
            Kind.PARAMETER_TOO_LARGE,
            f"the result has {size} bytes, the limit is {bytes_max}; ask for fewer rows or output fields",
        )


class Reached(NamedTuple):
    """A collection at the version a request will be answered at, or later."""

    manifest: Manifest
    deadline_s: float  # monotonic
    expired_ts: int = 0  # hybrid: rows up to it are left out, by every part alike


def level_of(request: Reading, manifest: Manifest) -> Consistency:
    """The consistency level asked for, or the collection's."""
    return manifest.collection.consistency if request.consistency is None else request.consistency


class ReadPath:
    """Plans and scatters."""

    def __init__(
        self,
        catalog: Catalog,
        versions: Versions,
        readers: Readers,
        scatter: Scatter,
        membership: Membership,
        placement: Placement,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._versions = versions
        self._readers = readers
        self._membership = membership
        self._placement = placement
        self._clock = clock
        self._plans: dict[object, tuple[object, Planned]] = {}  # with what they depend on
        self._in_use: dict[_Layout, int] = {}  # requests under way
        self.scatter = scatter

    async def reach(self, request: Reading) -> Reached:
        """The collection, loaded, and as new as the request's consistency level asks (P10)."""
        deadline_s = self._clock.monotonic_s() + request.timeout_s
        known = self._reached_already(request)
        if known is not None:
            return Reached(known, deadline_s, self._expired_ts(known))
        try:
            async with asyncio.timeout(request.timeout_s):
                manifest = await self._catalog.loaded(request.database, request.collection, request.partitions)
                level = level_of(request, manifest)
                if await self._versions.reach(manifest, level, request.guarantee_ts):  # the name may mean another now
                    manifest = await self._catalog.loaded(request.database, request.collection, request.partitions)
                await self._membership.wait_for("reader", min(MEMBER_WAIT_S, request.timeout_s / 2))
        except TimeoutError as error:
            raise MishardsError(Kind.DEADLINE, f"not answered within {request.timeout_s:g} s") from error
        return Reached(manifest, deadline_s, self._expired_ts(manifest))

    def _expired_ts(self, manifest: Manifest) -> int:
        """In a snapshot no row expires that had not when it was taken."""
        now_ms = manifest.ts >> LOGICAL_BITS if manifest.frozen else self._clock.unix_ms()
        return expired_ts(manifest.collection.properties, now_ms)

    def _reached_already(self, request: Reading) -> Manifest | None:
        """Nearly always everything needed is here: no waiting, no timer."""
        manifest = self._catalog.loaded_now(request.database, request.collection, request.partitions)
        if manifest is None or not self._versions.suffices(manifest, level_of(request, manifest), request.guarantee_ts):
            return None
        return manifest if self._readers.members() else None

    async def ask(
        self,
        request: Reading,
        reached: Reached,
        ask: Callable[[ReaderService, Plan, tuple[int, ...], float], Awaitable[A]],
    ) -> tuple[Plan, list[PartAnswer[A]]]:
        """The plan and its parts' answers. A reader that misses a file makes for a new plan, a few times."""
        manifest = reached.manifest
        for attempt in range(REPLANS_MAX + 1):
            make = self._newest_plan if attempt else self._plan
            plan, placed = make(request, manifest)
            try:
                answers = await self.scatter.ask_all(
                    placed,
                    lambda reader, files, left_s, plan=plan: ask(reader, plan, files, left_s),  # type: ignore[misc]
                    reached.deadline_s,
                )
            except ReplanError as cause:
                if attempt == REPLANS_MAX:
                    raise MishardsError(
                        Kind.UNAVAILABLE, f"planned {REPLANS_MAX + 1} times, files still missing: {cause}"
                    ) from cause
                self._plans.clear()
                manifest = await self._recheck(manifest, request, reached.deadline_s)
            else:
                return plan, answers
        raise AssertionError("unreachable")

    async def _recheck(self, manifest: Manifest, request: Reading, deadline_s: float) -> Manifest:
        """As `Catalog.recheck`, which asks the metadata service; that may hang. DEADLINE."""
        try:
            async with asyncio.timeout(deadline_s - self._clock.monotonic_s()):
                return await self._catalog.recheck(manifest, request.collection)
        except TimeoutError as error:
            raise MishardsError(Kind.DEADLINE, f"not answered within {request.timeout_s:g} s") from error

    def using(self, manifest: Manifest) -> _Use:
        """Around all that a request does with plans of this collection: they use no older layout than is known now."""
        return _Use(self._in_use, (manifest.collection.id, manifest.oldest))

    def layouts_in_use(self) -> dict[CollectionId, Version]:
        """By collection the oldest layout that a request under way may use (P12)."""
        oldest: dict[CollectionId, Version] = {}
        for collection_id, layout in self._in_use:
            oldest[collection_id] = min(layout, oldest.get(collection_id, layout))
        return oldest

    def _plan(self, request: Reading, manifest: Manifest) -> Planned:
        """The plan at the manifest's version, kept until something it depends on changes (P18)."""
        collection = manifest.collection
        key = (collection.id, request.partitions)
        epochs = (self._readers.epoch, self._membership.epoch)
        state = (collection.updated_ts, manifest.version, manifest.head, epochs)
        known = self._plans.get(key)
        if known is not None and known[0] == state:
            return known[1]
        plan, placed = self._make(request, manifest, self._readers.any_ready)
        if len(self._plans) >= PLANS_KEPT_MAX:
            self._plans.clear()
        if all(layout >= manifest.layout for layout in plan.layouts.values()):  # else time alone may change it (P11)
            self._plans[key] = (state, (plan, placed))
        return plan, placed

    def _newest_plan(self, request: Reading, manifest: Manifest) -> Planned:
        """The newest layout, ready or not: when the readers that had an older one are gone, others load this one."""
        return self._make(request, manifest, lambda _: True)

    def _make(self, request: Reading, manifest: Manifest, ready: Callable[[File], bool]) -> Planned:
        collection = manifest.collection
        plan = make_plan(
            manifest.files,
            manifest.version,
            manifest.oldest,
            collection.shards,
            readable_partitions(collection, request.partitions),
            ready,
            manifest.head,
        )
        nodes = self._placement.of(
            collection,
            lambda: [file for file in manifest.files.values() if file.kind is FileKind.SEGMENT and not file.removed],
            self._membership.of("reader"),
            (self._membership.epoch, manifest.layout),
        )
        return plan, Placed(plan.files, nodes)


class _Use:
    """Counts a request in and out; `contextlib.contextmanager` would take ten times as long."""

    def __init__(self, in_use: dict[_Layout, int], layout: _Layout) -> None:
        self._in_use = in_use
        self._layout = layout

    def __enter__(self) -> None:
        self._in_use[self._layout] = self._in_use.get(self._layout, 0) + 1

    def __exit__(self, *failure: object) -> None:
        self._in_use[self._layout] -= 1
        if not self._in_use[self._layout]:
            del self._in_use[self._layout]
