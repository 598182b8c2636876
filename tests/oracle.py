"""An independent brute-force oracle: what a collection must answer, by replaying its writes in order (I5).

Scores are computed in float64. With small integers as vectors every L2 and IP score is exact in float32 too, and so is
COSINE for vectors of +-1 in 4, 16 or 64 dimensions: then ties are exact ties, and answers can be compared for equality.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Key = int | str
Row = Mapping[str, Any]
Predicate = Callable[[Row], bool]
Metric = Literal["L2", "IP", "COSINE"]

DEFAULT_PARTITION = "_default"


class Hit(NamedTuple):
    key: Key
    score: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row lies: a primary key is unique within its partition."""

    partition: str
    key: Key


class Oracle:
    """One collection. Rows are dicts as clients insert them; each holds the whole row of its primary key."""

    def __init__(self, metric: Metric = "L2", key: str = "id", vector: str = "vector") -> None:
        self.metric = metric
        self._key = key
        self._vector = vector
        self._rows: dict[_Place, Row] = {}

    # -------------------------------------------------------------------------------------------------------- writes

    def insert(self, rows: Sequence[Row], partition: str = DEFAULT_PARTITION) -> None:
        """A key that is there already gets the new row: it is found once, the newest."""
        for row in rows:
            self._rows[_Place(partition, row[self._key])] = dict(row)

    upsert = insert

    def delete(self, keys: Collection[Key], partition: str | None = None) -> None:
        wanted = set(keys)
        self.delete_where(lambda row: row[self._key] in wanted, partition)

    def delete_where(self, predicate: Predicate, partition: str | None = None) -> None:
        for place, row in list(self._rows.items()):
            if partition in (None, place.partition) and predicate(row):
                del self._rows[place]

    # --------------------------------------------------------------------------------------------------------- reads

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> list[Key]:
        """All primary keys, ascending."""
        return sorted(place.key for place in self._rows)

    def query(
        self,
        where: Predicate | None = None,
        partitions: Sequence[str] | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Row]:
        """The rows that pass, in primary key order."""
        rows = sorted(self._passing(where, partitions), key=lambda row: row[self._key])
        return rows[offset:] if limit is None else rows[offset : offset + limit]

    def search(
        self,
        query: ArrayLike,
        limit: int,
        *,
        offset: int = 0,
        where: Predicate | None = None,
        partitions: Sequence[str] | None = None,
        radius: float | None = None,
        range_filter: float | None = None,
    ) -> list[Hit]:
        """The best rows, best first, ties by primary key ascending; `radius` is exclusive, `range_filter` inclusive."""
        rows = self._passing(where, partitions)
        if not rows:
            return []
        scores = self._scores(np.asarray(query, np.float64), [row[self._vector] for row in rows])
        hits = [Hit(row[self._key], float(score)) for row, score in zip(rows, scores, strict=True)]
        hits = [hit for hit in hits if self._in_range(hit.score, radius, range_filter)]
        sign = 1.0 if self.metric == "L2" else -1.0
        hits.sort(key=lambda hit: (sign * hit.score, hit.key))
        return hits[offset : offset + limit]

    def _passing(self, where: Predicate | None, partitions: Sequence[str] | None) -> list[Row]:
        return [
            row
            for place, row in self._rows.items()
            if (not partitions or place.partition in partitions) and (where is None or where(row))
        ]

    def _scores(self, query: NDArray[np.float64], vectors: Sequence[ArrayLike]) -> NDArray[np.float64]:
        matrix = np.asarray(vectors, np.float64)
        if self.metric == "L2":
            return np.asarray(((matrix - query) ** 2).sum(axis=1))
        products = matrix @ query
        if self.metric == "IP":
            return np.asarray(products)
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
        return np.asarray(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))

    def _in_range(self, score: float, radius: float | None, range_filter: float | None) -> bool:
        if self.metric == "L2":
            return (radius is None or score < radius) and (range_filter is None or score >= range_filter)
        return (radius is None or score > radius) and (range_filter is None or score <= range_filter)
