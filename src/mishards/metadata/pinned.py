"""Frozen views of pinned versions (P13): what searches of a snapshot are planned from and readers answer with.

A view is a manifest like any other, under the pin's id: it never changes, so it is kept until others need its place.
Only the binding of a name to a pin can change; it is looked up again when it is older than CHECK_S.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from msgspec.structs import replace

from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.manifest import Manifest
from mishards.metadata.snapshots import view_of
from mishards.model import CollectionId, Delta
from mishards.ports import MetadataStore, Pin

CHECK_S = 1.0
VIEWS_MAX = 32
NAMES_MAX = 1_000  # collections whose snapshots' names are kept


class PinnedViews:
    """The views that this process has read. All methods belong to one event loop."""

    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._views: OrderedDict[CollectionId, Manifest] = OrderedDict()
        self._names: dict[CollectionId, tuple[float, dict[str, CollectionId]]] = {}  # with when they were read
        self._reading = asyncio.Lock()  # one at a time: whoever waits finds what was read

    def get(self, id: CollectionId) -> Manifest | None:
        """The view of a pin, if it is here."""
        return self._views.get(id)

    async def find(self, collection_id: CollectionId, name: str, fresh: bool = False) -> Manifest | None:
        """The view of a collection's snapshot; None without one. `fresh`: as the metadata service has it now."""
        names = await self._names_of(collection_id, fresh)
        if name not in names and not fresh:  # it may be news
            names = await self._names_of(collection_id, fresh=True)
        return await self.load(names[name]) if name in names else None

    def look_again(self, collection_id: CollectionId) -> None:
        """The collection's snapshots have changed."""
        self._names.pop(collection_id, None)

    async def load(self, id: CollectionId) -> Manifest | None:
        """The view of a pin; None when there is no such pin. METADATA_UNAVAILABLE."""
        async with self._reading:
            if id in self._views:
                self._views.move_to_end(id)
                return self._views[id]
            try:
                pin, delta = await self._store.pinned(id)
            except MishardsError as error:
                if error.kind is Kind.GONE:
                    return None
                raise
            self._views[id] = _manifest(pin, delta)
            while len(self._views) > VIEWS_MAX:
                self._views.popitem(last=False)
            return self._views[id]

    async def _names_of(self, collection_id: CollectionId, fresh: bool) -> dict[str, CollectionId]:
        """What is known stays in force while the metadata service is down (P14)."""
        asked_s = self._clock.monotonic_s()
        async with self._reading:
            read_s, names = self._names.get(collection_id, (float("-inf"), {}))
            if read_s > asked_s or (not fresh and read_s >= asked_s - CHECK_S):
                return names
            sent_s = self._clock.monotonic_s()
            try:
                pins = await self._store.pins(collection_id)
            except MishardsError as error:
                if error.kind is not Kind.METADATA_UNAVAILABLE or fresh or not names:
                    raise
                return names
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            names = {pin.name: pin.id for pin in pins}
            self._names[collection_id] = (sent_s, names)
            return names


def _manifest(pin: Pin, delta: Delta) -> Manifest:
    files = tuple(replace(file, collection_id=pin.id) for file in delta.added)
    manifest = Manifest(view_of(pin), frozen=True)
    manifest.load(replace(delta, collection_id=pin.id, added=files))
    return manifest
