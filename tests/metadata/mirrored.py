"""A store as a mirror meets it, whose answers a test can hold or fail; and what a mirror knows of one collection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mishards.errors import Kind, MishardsError
from mishards.metadata.deltas import delta_of
from mishards.metadata.manifest import Manifest
from mishards.metadata.mirror import Mirror
from mishards.model import Collection, CollectionId, Commit, Delta, FileId, Version
from mishards.ports import CommitRequest, Head, MetadataStore

T = TypeVar("T")

NEVER_S = 3600.0  # no poll unless a test asks for one
BOOKS = CollectionId(1)


class Door:
    """What a mirror calls of a store. It can be shut (calls fail) or held (calls wait), and counts the calls."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.down = False
        self.calls: list[str] = []
        self.on_call: Callable[[], None] = lambda: None
        self.free = asyncio.Event()
        self.free.set()

    async def heads(self) -> list[Head]:
        return await self._pass("heads", self.store.heads)

    async def collections(self, ids: Sequence[CollectionId]) -> list[tuple[Collection, int]]:
        return await self._pass("collections", lambda: self.store.collections(ids))

    async def delta(self, collection_id: CollectionId, after: Version) -> Delta:
        return await self._pass("delta", lambda: self.store.delta(collection_id, after))

    async def payloads(self, files: Sequence[FileId]) -> dict[FileId, bytes]:
        return await self._pass("payloads", lambda: self.store.payloads(files))

    async def find_commit(self, collection_id: CollectionId, uuid: str) -> Commit | None:
        return await self._pass("find_commit", lambda: self.store.find_commit(collection_id, uuid))

    async def _pass(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(name)
        self.on_call()
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "shut")
        answer = await call()
        await self.free.wait()
        if self.down:
            raise MishardsError(Kind.METADATA_UNAVAILABLE, "shut meanwhile")
        return answer


def books(mirror: Mirror) -> Manifest:
    manifest = mirror.get(BOOKS)
    assert manifest is not None
    return manifest


async def push_of(store: MetadataStore, request: CommitRequest) -> Delta:
    """Commit, and what the writer would push."""
    return delta_of(request, await store.commit(request))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in the store's thread
            await asyncio.sleep(0)
