"""Rows for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mishards.model import VERSION_COLUMN, DataType, Field, FieldId, Schema

DIM = 3
PK, NAME, VECTOR = "100", "101", "102"


def schema(pk: DataType = DataType.INT64) -> Schema:
    """A primary key, a nullable VARCHAR and a vector."""
    return Schema(
        fields=(
            Field(id=FieldId(100), name="id", type=pk, primary_key=True, max_length=64),
            Field(id=FieldId(101), name="name", type=DataType.VARCHAR, nullable=True, max_length=64),
            Field(id=FieldId(102), name="vector", type=DataType.FLOAT_VECTOR, dim=DIM),
        )
    )


def batch(keys: Sequence[int] | Sequence[str], names: Sequence[str | None] | None = None) -> pa.RecordBatch:
    """Rows with these keys; `name` tells equal keys apart; row i's vector is (i, i + .5, -i)."""
    steps = np.arange(len(keys), dtype=np.float32)
    vectors = np.stack([steps, steps + 0.5, -steps], axis=1) if len(keys) else np.empty((0, DIM), np.float32)
    text = bool(len(keys)) and isinstance(keys[0], str)
    columns = [
        pa.array(keys, pa.string() if text else pa.int64()),
        pa.array(names if names is not None else [None] * len(keys), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
    ]
    return pa.RecordBatch.from_arrays(columns, names=[PK, NAME, VECTOR])


def table(keys: Sequence[int] | Sequence[str], versions: Sequence[int], names: Sequence[str | None]) -> pa.Table:
    """Rows of a segment."""
    return pa.Table.from_batches([batch(keys, names)]).append_column(VERSION_COLUMN, pa.array(versions, pa.int64()))
