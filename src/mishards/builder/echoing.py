"""Echoing the metadata to storage (P14): whoever loses the metadata service rebuilds it from the last echoes.

Nobody waits for it and nothing depends on it. One builder at a time goes over the collections and writes those that
changed since it last did; how often is bounded by time, and by bytes for large collections. Old echoes are deleted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from mishards.builder.claims import Claims
from mishards.clock import Clock
from mishards.errors import Kind, MishardsError
from mishards.metadata.echo import Echo, encode, folder_of, path_of
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId, File, FileId
from mishards.ports import MetadataStore, Pin, Storage

LEASE = "echo"
KEPT = 2  # of each collection: one may be torn or damaged
BYTES_PER_S = 1 << 20  # of one collection's echoes, on average; 10,000 files take about 6 MiB

State = tuple[int, int, tuple[CollectionId, ...]]  # version, schema timestamp, pins: what an echo shows

log = structlog.get_logger()


class Echoer:
    """Remembers what it has echoed; all methods belong to one event loop."""

    def __init__(self, store: MetadataStore, storage: Storage, mirror: Mirror, claims: Claims, clock: Clock) -> None:
        self._store = store
        self._storage = storage
        self._mirror = mirror
        self._claims = claims
        self._clock = clock
        self._echoed: dict[CollectionId, State] = {}
        self._rests_until_s: dict[CollectionId, float] = {}  # monotonic
        self._swept: set[CollectionId] = set()  # dropped collections whose echoes are deleted

    async def echo(self) -> int:
        """One round: how many collections were echoed. Nothing while another node is at it."""
        try:
            async with self._claims.hold(LEASE):
                await self._forget_dropped()
                return await self._echo_changed()
        except MishardsError as error:
            if error.kind is Kind.LEASE_HELD:
                return 0
            raise

    async def _echo_changed(self) -> int:
        pins: dict[CollectionId, list[Pin]] = defaultdict(list)
        for pin in await self._store.pins():
            if not pin.expires:
                pins[pin.collection_id].append(pin)
        echoed = 0
        for manifest in self._mirror.manifests():
            id = manifest.collection.id
            state = (manifest.version, manifest.collection.updated_ts, tuple(pin.id for pin in pins[id]))
            if self._echoed.get(id) == state or self._clock.monotonic_s() < self._rests_until_s.get(id, 0.0):
                continue
            try:
                size = await self._write(manifest, pins[id])
            except MishardsError as error:
                if error.kind not in (Kind.GONE, Kind.COLLECTION_NOT_FOUND):
                    raise
                continue  # it has changed meanwhile: the next round sees how
            self._echoed[id] = state
            self._rests_until_s[id] = self._clock.monotonic_s() + size / BYTES_PER_S
            echoed += 1
        return echoed

    async def _write(self, manifest: Manifest, pins: Sequence[Pin]) -> int:
        """Write one echo and delete all but the newest few; its size."""
        echo = Echo(
            collection=manifest.collection,
            version=manifest.version,
            ts=manifest.ts,
            head=manifest.head,
            at_ms=self._clock.unix_ms(),
            files=tuple(manifest.live()),
            pins=tuple(pins),
        )
        files = (*echo.files, *await self._pinned_only(echo))
        payloads = await self._mirror.payloads([file for file in files if file.inline])
        data = await asyncio.to_thread(encode, replace(echo, files=files, payloads=payloads))
        await self._storage.put(path_of(echo, self._clock.token()), data)
        paths = sorted(await self._storage.list(folder_of(echo.collection.id)))
        await self._storage.delete(paths[:-KEPT])
        log.debug("collection echoed", collection=echo.collection.id, version=echo.version, bytes=len(data))
        return len(data)

    async def _pinned_only(self, echo: Echo) -> list[File]:
        """The files that are removed and that a pin needs, as removed by the version of the echo."""
        found: dict[FileId, File] = {}
        for pin in echo.pins:
            _, delta = await self._store.pinned(pin.id)
            found |= {file.id: replace(file, removed=echo.version) for file in delta.added}
        live = {file.id for file in echo.files}
        return [file for id, file in found.items() if id not in live]

    async def _forget_dropped(self) -> None:
        """Without its echoes a dropped collection does not come back."""
        dropped = set(await self._store.dropped_collections(0.0))
        for id in dropped - self._swept:
            await self._storage.delete(await self._storage.list(folder_of(id)))
            self._echoed.pop(id, None)
            self._rests_until_s.pop(id, None)
        self._swept = dropped
