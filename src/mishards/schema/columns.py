"""A column of a write request as a door decoded it: values of the rows that have one, and which rows those are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class Column(msgspec.Struct, frozen=True):
    """Decoded values of one field, not yet checked against the schema.

    `values`: numpy array or list, only of the valid rows when `valid` is given; a vector field has (rows, dim) float32.
    `valid`: (rows,) bool, or None when every row has a value. JSON values are UTF-8 bytes.
    `type`: the DataType number the client sent, to be compared with the field's.
    """

    values: NDArray[Any] | Sequence[Any]
    valid: NDArray[np.bool_] | None = None
    type: int = 0
