"""Inline payloads that pushes carried along, kept so that a reader need not ask for them again. Bounded (P15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mishards.model import FileId

PUSHED_BYTES_MAX = 64 << 20  # about a thousand of the largest inline payloads


class PayloadCache:
    """The newest payloads up to a number of bytes; what falls out is read from the metadata service."""

    def __init__(self, bytes_max: int = PUSHED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._payloads: dict[FileId, bytes] = {}
        self._bytes = 0

    def add(self, payloads: Mapping[FileId, bytes]) -> None:
        for id, data in payloads.items():
            if id not in self._payloads:
                self._payloads[id] = data
                self._bytes += len(data)
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._payloads))
            self._bytes -= len(self._payloads.pop(oldest))

    def get(self, ids: Iterable[FileId]) -> dict[FileId, bytes]:
        """Those of the payloads that are here."""
        return {id: self._payloads[id] for id in ids if id in self._payloads}
