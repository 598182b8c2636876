"""One part of a search over its sources: filter first, then the index or exact search, then one merge (P8).

Pure and CPU-bound: runs inline when short, on the reader's pool otherwise (`reader/node.py` decides by `cost_s`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.filter import Filter, compile_filter
from mishards.index.exact import bitmap, exact_range, exact_search, normalised
from mishards.index.selectivity import prefers_exact
from mishards.model import Schema
from mishards.ports import Matrix
from mishards.reader.source import Mask, Source
from mishards.wire.hits import Hits, best, gather, key_array

GATHER_SHARE = 0.1  # below it the selected vectors are gathered; above it the whole matrix is scanned with a bitmap
EXACT_FLOPS = 4e9  # multiply-adds a second of exact search on one core, for `cost_s` only
INDEX_SEARCH_S = 2e-4  # one query on an index, for `cost_s` only
INDEX_HIT_S = 2e-6  # ... and for each hit wanted


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled filter with the key under which its results are cached."""

    filter: Filter
    key: tuple[str, bytes]

    @classmethod
    def of(cls, text: str, template: Mapping[str, Any], schema: Schema) -> Condition:
        key = (text, msgspec.msgpack.encode(template, order="sorted"))
        return cls(compile_filter(text, schema, template), key)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every source alike."""

    field_id: int
    index_id: int  # of the definition to search through; 0: exactly
    queries: Matrix  # (nq, dim)
    k: int
    metric: str
    params: Mapping[str, Any]
    condition: Condition
    radius: float | None
    range_filter: float | None
    text_keys: bool


def search(sources: Sequence[Source], question: Question) -> tuple[Hits, NDArray[np.int32]]:
    """The best k hits of each query over all sources, sorted, with `sources` telling where: (hits, counts (nq,))."""
    found = [_search_source(source, number, question) for number, source in enumerate(sources)]
    hits = gather([part for part in found if part is not None and len(part)], question.text_keys)
    return best(hits, len(question.queries), question.metric, question.k)


def cost_s(sources: Sequence[Source], question: Question) -> float:
    """A rough estimate of `search`'s time on one core."""
    nq, dim = question.queries.shape
    total = 0.0
    for source in sources:
        if source.index(question.index_id) is not None:
            total += nq * (INDEX_SEARCH_S + question.k * INDEX_HIT_S)
        else:
            total += nq * source.rows * dim / EXACT_FLOPS
        if not question.condition.filter.is_all:
            total += source.rows * 2e-9 + 2e-4
    return total


def selected(source: Source, condition: Condition) -> Mask | None:
    """The rows that live and pass the filter; None: all."""
    if condition.filter.is_all:
        return source.alive
    if condition.filter.keys is not None:
        mask = _selected_by_key(source, condition.filter)
    else:
        mask = source.masks.get(
            condition.key, source.rows, lambda start: condition.filter.mask(source.table.slice(start))
        )
    return mask if source.alive is None else mask & source.alive


def _selected_by_key(source: Source, row_filter: Filter) -> Mask:
    """A filter that names primary keys reads only the rows of those keys."""
    assert row_filter.keys is not None
    positions = source.find(pa.array(row_filter.keys, source.keys.type))
    mask = np.zeros(source.rows, np.bool_)
    if len(positions):
        mask[positions[row_filter.mask(source.table.take(pa.array(positions)))]] = True
    return mask


def _search_source(source: Source, number: int, question: Question) -> Hits | None:
    allowed = selected(source, question.condition)
    count = source.rows if allowed is None else int(np.count_nonzero(allowed))
    if count == 0:
        return None
    if question.radius is not None:
        queries, scores, positions = _in_range(source, allowed, question)
    else:
        queries, scores, positions = _nearest(source, allowed, count, question)
    files, places = source.place_of(positions)
    return Hits(
        queries=queries,
        scores=scores,
        keys=key_array(source.keys_at(positions)),
        files=files,
        positions=places,
        sources=np.full(len(positions), number, np.int32),
        rows=positions,
    )


def _nearest(
    source: Source, allowed: Mask | None, count: int, question: Question
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    queries, k = question.queries, min(question.k, count)
    index = source.index(question.index_id)
    if index is not None and not (allowed is not None and prefers_exact(count, source.rows, k)):
        scores, positions = index.search(queries, k, question.params, None if allowed is None else bitmap(allowed))
    else:
        matrix, chosen, bits = _rows_to_scan(source, allowed, count, question)
        ranks = _ranks(source, chosen)
        scores, positions = exact_search(matrix, queries, k, question.metric, bits, ranks)
        if chosen is not None:
            positions = np.where(positions >= 0, chosen[positions], -1)
    numbers = np.repeat(np.arange(len(queries), dtype=np.int32), positions.shape[1])
    flat = positions.ravel()
    valid = flat >= 0
    return numbers[valid], scores.ravel()[valid], flat[valid]


def _in_range(
    source: Source, allowed: Mask | None, question: Question
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """The best k of each query inside the range, and those that tie with the k-th: the merge breaks ties by key."""
    assert question.radius is not None
    count = source.rows if allowed is None else int(np.count_nonzero(allowed))
    matrix, chosen, bits = _rows_to_scan(source, allowed, count, question)
    offsets, scores, positions = exact_range(
        matrix, question.queries, question.radius, question.range_filter, question.metric, bits
    )
    numbers = np.repeat(np.arange(len(question.queries), dtype=np.int32), np.diff(offsets))
    if np.diff(offsets).max(initial=0) > question.k:
        last = np.minimum(offsets[:-1] + question.k, offsets[1:]) - 1  # the k-th of each query, where it has that many
        kept = (np.arange(len(scores)) <= last[numbers]) | (scores == scores[last][numbers])
        numbers, scores, positions = numbers[kept], scores[kept], positions[kept]
    return numbers, scores, positions if chosen is None else chosen[positions]


def _rows_to_scan(
    source: Source, allowed: Mask | None, count: int, question: Question
) -> tuple[Matrix, NDArray[np.int64] | None, NDArray[np.uint8] | None]:
    """(matrix, the positions its rows stand for or None for all, bitmap or None)."""
    cosine = question.metric == "COSINE"
    if allowed is not None and count < source.rows * GATHER_SHARE:
        chosen = np.flatnonzero(allowed)
        gathered = source.vectors(question.field_id)[chosen]
        return normalised(gathered) if cosine else gathered, chosen, None
    matrix = (source.unit_vectors if cosine else source.vectors)(question.field_id)
    return matrix, None, None if allowed is None else bitmap(allowed)


def _ranks(source: Source, chosen: NDArray[np.int64] | None) -> Any:
    """How to break ties at the k-th hit: None when positions are in key order, else a function giving row ranks."""
    if source.ordered:
        return None

    def ranks() -> NDArray[np.int64]:
        positions = np.arange(source.rows) if chosen is None else chosen
        order = pc.sort_indices(source.keys_at(positions)).to_numpy()
        result = np.empty(len(order), np.int64)
        result[order] = np.arange(len(order))
        return result

    return ranks
