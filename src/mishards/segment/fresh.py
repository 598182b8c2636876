"""Fresh objects: the rows and the tombstones of one commit in one shard, as the writer commits them (P9).

Each is one Arrow stream and a footer; small ones lie in the metadata service, larger ones in storage. Between proxy and
writer they travel in the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.segment.footer import seal, unseal
from mishards.segment.ipc import from_stream, to_stream


@dataclass(frozen=True, slots=True, eq=False)
class Tombstones:
    """Deletes of one commit (P4). Row i kills the rows of `keys[i]` with a version below `below[i]` (0: below the
    commit's own version) in partition `partitions[i]` (0: in any)."""

    keys: pa.Array[Any]  # int64 or utf8
    below: NDArray[np.int64]
    partitions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


def tombstones_of(keys: pa.Array[Any], below: int = 0, partition_id: int = 0) -> Tombstones:
    """Tombstones of these keys, all with the same reach."""
    return Tombstones(keys, np.full(len(keys), below, np.int64), np.full(len(keys), partition_id, np.int64))


def concat(parts: Sequence[Tombstones]) -> Tombstones:
    """All of them, in order. At least one part; all with the same type of key."""
    return Tombstones(
        pa.concat_arrays([part.keys for part in parts]),
        np.concatenate([part.below for part in parts]),
        np.concatenate([part.partitions for part in parts]),
    )


def encode_rows(rows: pa.RecordBatch, collection_id: int = 0, shard: int = 0) -> bytes:
    """A rows object. Collection and shard describe it in storage; on the wire they are left out."""
    return seal(to_stream(rows), kind="rows", rows=rows.num_rows, collection_id=collection_id, shard=shard)


def decode_rows(data: bytes | memoryview) -> pa.RecordBatch:
    """The rows of a rows object, as views into `data`. Corrupt: STORAGE_UNAVAILABLE."""
    return from_stream(unseal(data, "rows"))


def encode_tombstones(tombstones: Tombstones, collection_id: int = 0, shard: int = 0) -> bytes:
    """A tombstones object."""
    batch = tombstones_batch(tombstones)
    return seal(to_stream(batch), kind="tombstones", rows=len(tombstones), collection_id=collection_id, shard=shard)


def decode_tombstones(data: bytes | memoryview) -> Tombstones:
    """The tombstones of a tombstones object, as views into `data`. Corrupt: STORAGE_UNAVAILABLE."""
    return batch_tombstones(from_stream(unseal(data, "tombstones")))


def tombstones_batch(tombstones: Tombstones) -> pa.RecordBatch:
    """Tombstones as Arrow columns: key, below, partition."""
    columns = [tombstones.keys, pa.array(tombstones.below), pa.array(tombstones.partitions)]
    return pa.RecordBatch.from_arrays(columns, names=["key", "below", "partition"])


def batch_tombstones(batch: pa.RecordBatch) -> Tombstones:
    """The reverse of `tombstones_batch`."""
    return Tombstones(batch.column("key"), batch.column("below").to_numpy(), batch.column("partition").to_numpy())
