"""A reader that missed a push is told by a proxy that did not (P9, P14)."""

from __future__ import annotations

import asyncio
from typing import Any

import peers as p
import pytest

from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId, Delta, Version
from mishards.proxy.telling import Telling
from mishards.wire.messages import Nothing, Notice

BOOKS = CollectionId(1)
NEWS = Delta(collection_id=BOOKS, after=Version(3), version=Version(5), ts=5, head="u5", previous="u3")


class Mirror:
    def since(self, collection_id: CollectionId, version: Version) -> Delta | None:
        return NEWS if (collection_id, version) == (NEWS.collection_id, NEWS.after) else None


class Node:
    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self.failure: BaseException | None = None
        self.hangs = False

    async def notify(self, notice: Notice) -> Nothing:
        self.heard.append(notice)
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        return Nothing()


class Peers:
    def __init__(self, node: Node) -> None:
        self._node = node

    def node(self, member: Any) -> Any:
        return self._node


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def telling(node: Node) -> Telling:
    parts: list[Any] = [Mirror(), Peers(node)]
    return Telling(*parts)


async def test_what_happened_since_is_pushed(telling: Telling, node: Node) -> None:
    """As one push; nothing when it is not known here."""
    await telling.tell(p.member("a"), BOOKS, Version(3), 1.0)
    await telling.tell(p.member("a"), BOOKS, Version(2), 1.0)

    assert node.heard == [Notice(NEWS)]


async def test_a_reader_that_cannot_be_told_fails_nothing(telling: Telling, node: Node) -> None:
    """It is lost, or says nothing as long as the request may wait: whoever asked goes on elsewhere."""
    node.failure = MishardsError(Kind.PEER_LOST, "lost")
    await telling.tell(p.member("a"), BOOKS, Version(3), 1.0)
    node.failure, node.hangs = None, True
    await telling.tell(p.member("a"), BOOKS, Version(3), 0.0)

    assert len(node.heard) == 2
