"""Contents of fresh files that came with a push or were written here, kept so that nobody need read them again.
Bounded (P15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from mishards.model import FileId

P = TypeVar("P", bytes, bytes | memoryview)

KEPT_BYTES_MAX = 64 << 20  # about a thousand of the largest inline payloads; the fresh rows of a shard until they seal


class PayloadCache(Generic[P]):
    """The newest payloads up to a number of bytes; what falls out is read from the metadata service."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._payloads: dict[FileId, P] = {}
        self._bytes = 0

    def add(self, payloads: Mapping[FileId, P]) -> None:
        for id, data in payloads.items():
            if id not in self._payloads:
                self._payloads[id] = data
                self._bytes += len(data)
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._payloads))
            self._bytes -= len(self._payloads.pop(oldest))

    def get(self, ids: Iterable[FileId]) -> dict[FileId, P]:
        """Those of the payloads that are here."""
        return {id: self._payloads[id] for id in ids if id in self._payloads}
