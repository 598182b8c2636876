"""Fresh objects: the rows and the tombstones of one commit in one shard, as the writer commits them (P9).

Each is one Arrow stream and a footer; small ones lie in the metadata service, larger ones in storage. Between proxy and
writer they travel in the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.segment.footer import FOOTER_ROOM, footer_of, seal, unseal
from mishards.segment.ipc import from_stream, to_stream


@dataclass(frozen=True, eq=False)
class Tombstones:
    """Deletes of one commit (P4). Row i kills the rows of `keys[i]` with a version below `below[i]` (0: below the
    commit's own version) in partition `partitions[i]` (0: in any)."""

    keys: pa.Array[Any]  # int64 or utf8
    below: NDArray[np.int64]
    partitions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def key_range(self) -> tuple[Any, Any]:
        """The smallest and the largest key; (None, None) without any. Most files hold no key in between."""
        bounds = pc.min_max(self.keys)
        return bounds["min"].as_py(), bounds["max"].as_py()


def tombstones_of(keys: pa.Array[Any], below: int = 0, partition_id: int = 0) -> Tombstones:
    """Tombstones of these keys, all with the same reach."""
    return Tombstones(keys, _repeated(below, len(keys)), _repeated(partition_id, len(keys)))


def concat(parts: Sequence[Tombstones]) -> Tombstones:
    """All of them, in order. At least one part; all with the same type of key."""
    return Tombstones(
        pa.concat_arrays([part.keys for part in parts]),
        np.concatenate([part.below for part in parts]),
        np.concatenate([part.partitions for part in parts]),
    )


def encode_rows(rows: pa.RecordBatch, collection_id: int = 0, shard: int = 0) -> memoryview:
    """A rows object. Collection and shard describe it in storage. The footer is written behind the body where it lies:
    rows may be large."""
    buffer = to_stream(rows, FOOTER_ROOM)
    body = buffer[:-FOOTER_ROOM]
    footer = footer_of(body, kind="rows", rows=rows.num_rows, collection_id=collection_id, shard=shard)
    end = len(body) + len(footer)
    buffer[len(body) : end] = footer
    return buffer[:end].toreadonly()


def decode_rows(data: bytes | memoryview) -> pa.RecordBatch:
    """The rows of a rows object, as views into `data`. Corrupt: STORAGE_UNAVAILABLE."""
    return from_stream(unseal(data, "rows"))


def encode_tombstones(tombstones: Tombstones, collection_id: int = 0, shard: int = 0) -> bytes:
    """A tombstones object. Columns that hold nothing but 0, as those of an upsert do, are left out."""
    batch = tombstones_batch(tombstones)
    stored = [name for name in batch.schema.names if name == "key" or batch.column(name).to_numpy().any()]
    body = to_stream(batch.select(stored))
    return seal(body, kind="tombstones", rows=len(tombstones), collection_id=collection_id, shard=shard)


def decode_tombstones(data: bytes | memoryview) -> Tombstones:
    """The tombstones of a tombstones object, as views into `data`. Corrupt: STORAGE_UNAVAILABLE."""
    batch = from_stream(unseal(data, "tombstones"))
    rest = (
        batch.column(name).to_numpy() if name in batch.schema.names else _repeated(0, batch.num_rows)
        for name in ("below", "partition")
    )
    return Tombstones(batch.column("key"), *rest)


def tombstones_batch(tombstones: Tombstones) -> pa.RecordBatch:
    """Tombstones as Arrow columns: key, below, partition."""
    columns = [tombstones.keys, pa.array(tombstones.below), pa.array(tombstones.partitions)]
    return pa.RecordBatch.from_arrays(columns, names=["key", "below", "partition"])


def batch_tombstones(batch: pa.RecordBatch) -> Tombstones:
    """The reverse of `tombstones_batch`."""
    return Tombstones(batch.column("key"), batch.column("below").to_numpy(), batch.column("partition").to_numpy())


def _repeated(value: int, count: int) -> NDArray[np.int64]:
    """(count,) the same value, of one number in memory. Not to be written to. It is `np.broadcast_to` in a fifth of
    its time."""
    return np.ndarray(count, np.int64, np.int64(value).tobytes(), strides=(0,))
