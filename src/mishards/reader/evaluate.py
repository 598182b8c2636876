"""One part of a search over its sources: filter first, then the index or exact search, then one merge (P8).

Pure and CPU-bound: runs inline when short, on the reader's pool otherwise (`reader/node.py` decides by `cost_s`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mishards.filter import Filter, compile_filter
from mishards.index.exact import bitmap, exact_range, exact_range_at, exact_search, exact_search_at
from mishards.model import Schema
from mishards.ports import Matrix
from mishards.reader.interims import Key
from mishards.reader.joints import Group
from mishards.reader.source import Mask, Source
from mishards.wire.hits import LARGER_IS_BETTER, Hits, best, first_hits, gather

GATHER_SHARE = 0.1  # below it the selected vectors are gathered; above it the whole matrix is scanned with a bitmap
EXACT_FLOPS = 8e9  # multiply-adds a second of exact search on one core, for `cost_s` only
INDEX_SEARCH_S = 8e-5  # one query on an index, for `cost_s` only
INDEX_HIT_S = 2e-6  # ... and for each hit wanted
PROPOSED_USUAL = 150  # rows by an interim index, for `cost_s` only


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

    @property
    def interim(self) -> Key:
        """What stands in for an index that it could use."""
        return self.field_id, self.metric


class Candidates(NamedTuple):
    """Rows that may be among the best."""

    sources: NDArray[np.int32]  # their numbers
    queries: NDArray[np.int32]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]  # positions in the source


def search(
    sources: Sequence[Source], question: Question, groups: Sequence[Group] = ()
) -> tuple[Hits, NDArray[np.int32]]:
    """The best k hits of each query over all sources, sorted, with `sources` telling where: (hits, counts (nq,)).
    `groups` of the sources are searched together. Only those hits that can win are looked up: most cannot."""
    grouped = {number for group in groups for number in group.members}
    parts = [part for group in groups for part in _search_group(sources, group, question)]
    for number, source in enumerate(sources):
        if number not in grouped and (part := _search_source(source, number, question)) is not None:
            parts.append(part)
    nq, k = len(question.queries), question.k
    if not parts:
        return gather((), question.text_keys), np.zeros(nq, np.int32)
    if len(parts) > 1 or groups:
        return best(_contenders(sources, parts, nq, k, question.metric), nq, question.metric, k)
    numbers, queries, scores, rows = parts[0]
    source = sources[int(numbers[0])]
    hits = Hits(queries, scores, *_looked_up(source, rows), numbers, rows)
    if source.ordered and question.radius is None:  # sorted already
        return first_hits(hits, np.bincount(queries, minlength=nq).astype(np.int32), k)
    return best(hits, nq, question.metric, k)


def _contenders(sources: Sequence[Source], parts: Sequence[Candidates], nq: int, k: int, metric: str) -> Hits:
    """Those at least as good as the k-th of their query: the merge decides between equals by key."""
    numbers, queries, scores, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    kept = np.arange(len(rows))
    if len(rows) > k:
        kept = _as_good_as_kth(queries, -scores if metric in LARGER_IS_BETTER else scores, nq, k)
    kept = kept[np.argsort(numbers[kept], kind="stable")]
    numbers, queries, scores, rows = numbers[kept], queries[kept], scores[kept], rows[kept]
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    found = [_looked_up(sources[int(numbers[end - 1])], rows[start:end]) for start, end in pairwise([0, *ends])]
    keys, files, places = (np.concatenate(column) for column in zip(*found, strict=True))
    return Hits(queries, scores, keys, files, places, numbers, rows)


def _as_good_as_kth(queries: NDArray[np.int32], costs: NDArray[np.float32], nq: int, k: int) -> NDArray[np.int64]:
    """Which of the rows cost at most what the k-th of their query does."""
    if nq == 1:
        return np.flatnonzero(costs <= np.partition(costs, k - 1)[k - 1])
    order = np.lexsort((costs, queries))
    ends = np.searchsorted(queries[order], np.arange(nq, dtype=np.int32), side="right")
    starts = np.concatenate([[0], ends[:-1]])
    last = order[np.maximum(np.minimum(starts + k, ends) - 1, 0)]  # of each query; any row where it has none
    return np.flatnonzero(costs <= costs[last][queries])


def _looked_up(source: Source, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """The keys, files and places there of the source's rows."""
    return source.key_values_at(rows), *source.place_of(rows)


def cost_s(sources: Sequence[Source], question: Question, groups: Sequence[Group] = ()) -> float:
    """A rough estimate of `search`'s time on one core."""
    nq, dim = question.queries.shape
    index_s = nq * (INDEX_SEARCH_S + question.k * INDEX_HIT_S)
    total = 0.0
    grouped: set[int] = set()
    for group in groups:
        total += group.covering.cost_s(nq, PROPOSED_USUAL)
        grouped.update(group.members)
    for number, source in enumerate(sources):
        if question.index_id and source.index(question.index_id) is not None:
            total += index_s
        elif number not in grouped:
            total += nq * source.alive_count * dim / EXACT_FLOPS
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


def _search_group(sources: Sequence[Source], group: Group, question: Question) -> list[Candidates]:
    """Through the interim index, or each source exactly where that is better or the index finds too little."""
    allowed = None
    if not question.condition.filter.is_all:
        allowed = [selected(sources[number], question.condition) for number in group.members]
    count = group.covering.count(allowed)
    queries, k, params = question.queries, question.k, question.params
    if group.covering.prefers_exact(count, len(queries), k, params):
        return _each_exactly(sources, group, question)
    found, lacking = group.covering.search(queries, k, params, allowed, count)
    numbers = np.array(group.members, np.int32)[found.parts]
    part = Candidates(numbers, found.queries.astype(np.int32), found.scores, found.positions)
    if not lacking.any():
        return [part]
    few = np.flatnonzero(lacking).astype(np.int32)
    exact = _each_exactly(sources, group, replace(question, queries=queries[few]))
    enough = _only(part, ~lacking[part.queries])
    return [enough, *(each._replace(queries=few[each.queries]) for each in exact)]


def _each_exactly(sources: Sequence[Source], group: Group, question: Question) -> list[Candidates]:
    exact = replace(question, index_id=0)
    parts = (_search_source(sources[number], number, exact) for number in group.members)
    return [part for part in parts if part is not None]


def _only(part: Candidates, kept: Mask) -> Candidates:
    return Candidates(part.sources[kept], part.queries[kept], part.scores[kept], part.rows[kept])


def _search_source(source: Source, number: int, question: Question) -> Candidates | None:
    """None: nothing."""
    allowed = selected(source, question.condition)
    count = _count(source, allowed)
    if count == 0:
        return None
    if question.radius is not None:
        queries, scores, rows = _in_range(source, allowed, question)
    else:
        queries, scores, rows = _nearest(source, allowed, count, question)
    return Candidates(np.full(len(rows), number, np.int32), queries, scores, rows) if len(rows) else None


def _count(source: Source, allowed: Mask | None) -> int:
    """How many rows are allowed; None: all, and all live."""
    return source.alive_count if allowed is None or allowed is source.alive else int(np.count_nonzero(allowed))


def _bits(source: Source, allowed: Mask | None) -> NDArray[np.uint8] | None:
    return source.alive_bits if allowed is None or allowed is source.alive else bitmap(allowed)


def _nearest(
    source: Source, allowed: Mask | None, count: int, question: Question
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    queries, k = question.queries, min(question.k, count)
    index = source.index(question.index_id) if question.index_id else None
    if index is not None and not index.prefers_exact(count, len(queries), k, question.params):
        scores, positions = index.search(queries, k, question.params, _bits(source, allowed))
    else:
        matrix, chosen, bits = _rows_to_scan(source, allowed, count, question)
        ranks = _ranks(source)
        if chosen is None:
            scores, positions = exact_search(matrix, queries, k, question.metric, bits, ranks)
        else:
            scores, positions = exact_search_at(matrix, chosen, queries, k, question.metric, ranks)
    numbers = np.arange(len(queries), dtype=np.int32).repeat(positions.shape[1])
    scores, flat = scores.ravel(), positions.ravel()
    if flat.min() >= 0:
        return numbers, scores, flat
    valid = flat >= 0
    return numbers[valid], scores[valid], flat[valid]


def _in_range(
    source: Source, allowed: Mask | None, question: Question
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """The best k of each query inside the range, and those that tie with the k-th: the merge breaks ties by key."""
    assert question.radius is not None
    count = _count(source, allowed)
    matrix, chosen, bits = _rows_to_scan(source, allowed, count, question)
    limits = (question.radius, question.range_filter, question.metric)
    if chosen is None:
        offsets, scores, positions = exact_range(matrix, question.queries, *limits, bits)
    else:
        offsets, scores, positions = exact_range_at(matrix, chosen, question.queries, *limits)
    numbers = np.repeat(np.arange(len(question.queries), dtype=np.int32), np.diff(offsets))
    if np.diff(offsets).max(initial=0) > question.k:
        last = np.minimum(offsets[:-1] + question.k, offsets[1:]) - 1  # the k-th of each query, where it has that many
        kept = (np.arange(len(scores)) <= last[numbers]) | (scores == scores[last][numbers])
        numbers, scores, positions = numbers[kept], scores[kept], positions[kept]
    return numbers, scores, positions


def _rows_to_scan(
    source: Source, allowed: Mask | None, count: int, question: Question
) -> tuple[Matrix, NDArray[np.int64] | None, NDArray[np.uint8] | None]:
    """(matrix, positions, None): the rows at the positions of the vectors as stored; or (matrix, None, bitmap): all
    rows, prepared for the metric. Where there is an index no unit vectors are kept for the rare exact search."""
    cosine = question.metric == "COSINE"
    indexed = source.index(question.index_id) is not None
    if count < source.rows * GATHER_SHARE or (cosine and indexed):
        chosen = np.arange(source.rows) if allowed is None else np.flatnonzero(allowed)
        return source.vectors(question.field_id), chosen, None
    matrix = (source.unit_vectors if cosine else source.vectors)(question.field_id)
    return matrix, None, _bits(source, allowed)


def _ranks(source: Source) -> Callable[[], NDArray[np.int64]] | None:
    """How to break ties at the k-th hit: None when positions are in key order, else a function giving row ranks."""
    if source.ordered:
        return None

    def ranks() -> NDArray[np.int64]:
        order = pc.sort_indices(source.keys_at(np.arange(source.rows))).to_numpy()
        result = np.empty(len(order), np.int64)
        result[order] = np.arange(len(order))
        return result

    return ranks
