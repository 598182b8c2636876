"""Searching, scanning and counting over segments and fresh rows together equals brute force (P8, I5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import held as h
import numpy as np
import pyarrow as pa
import pytest

from mishards.model import FileKind
from mishards.reader import evaluate
from mishards.reader.columns import take_rows
from mishards.reader.evaluate import Condition, Question, search
from mishards.reader.scan import count, scan
from mishards.reader.source import MaskCache, Source
from mishards.reader.tail import Tail

FILTERS: dict[str, Callable[[h.Row], bool]] = {
    "": lambda row: True,
    "number < 3": lambda row: row.number is not None and row.number < 3,
    "number == 1": lambda row: row.number == 1,
    "number is null": lambda row: row.number is None,
    "number > 100": lambda row: False,
}


@dataclass
class World:
    """Sources, and the rows that live in them."""

    sources: list[Source]
    live: list[h.Row]
    text: bool


def world(seed: int, text: bool = False, rows: int = 120) -> World:
    """Segments (one with a delete bitmap) and several blocks' files, overwritten and deleted in all orders."""
    random = np.random.default_rng(seed)
    key = (lambda n: f"k{n}") if text else int
    written: dict[h.Key, tuple[int, h.Row]] = {}
    commits: list[list[h.Row]] = []
    deletes: list[tuple[int, h.Key]] = []
    for version in range(1, 13):
        chosen = random.choice(rows, 14, replace=False)
        commits.append(
            [
                h.Row(key(n), None if n % 7 == 0 else int(random.integers(0, 9)), tuple(random.integers(0, 3, 2) * 1.0))
                for n in chosen
            ]
        )
        for each in commits[-1]:
            if each.key in written:
                deletes.append((version, each.key))
            written[each.key] = (version, each)
        for n in random.choice(rows, 2, replace=False):
            if written.get(key(n), (version,))[0] < version:
                deletes.append((version, key(n)))
                del written[key(n)]
    cut = 5
    tail = Tail(h.schema(text))
    held: list[h.HeldSegment] = []
    flushed: dict[h.Key, tuple[h.Row, int]] = {}
    for version, commit in enumerate(commits[:cut], 1):
        flushed |= {each.key: (each, version) for each in commit}
    content = list(flushed.values())
    gone = [key for at, key in deletes if at <= cut and flushed.get(key, (None, 99))[1] < at]
    for number, part in enumerate((content[::2], content[1::2])):
        record = h.file(100 + number, FileKind.SEGMENT, len(part), cut, horizon=cut)
        held.append(h.segment(record, part, dead=[each.key for each, _ in part if each.key in gone]))
    for version, commit in enumerate(commits[cut:], cut + 1):
        tail.add(h.file(version, FileKind.ROWS, len(commit), version), h.batch(commit), {})
    for version in range(cut + 1, 13):
        keys = [key for at, key in deletes if at == version]
        if keys:
            tail.apply(h.kills(keys), version)
            for each in held:
                each.apply(h.kills(keys), version)
    sources = [each.source(12) for each in held] + tail.sources(range(cut + 1, 13), 12)
    return World(sources, [row for _, row in written.values()], text)


def question(made: World, text: str, **changes: Any) -> Question:
    values: dict[str, Any] = {
        "index_id": 0,
        "field_id": h.VECTOR,
        "queries": np.array([[0, 1], [2, 2]], np.float32),
        "k": 7,
        "metric": "L2",
        "params": {},
        "condition": Condition.of(text, {}, h.schema(made.text)),
        "radius": None,
        "range_filter": None,
        "text_keys": made.text,
        **changes,
    }
    return Question(**values)


def expected(made: World, asked: Question, passes: Callable[[h.Row], bool]) -> list[list[tuple[h.Key, float]]]:
    answers = []
    for query in asked.queries:
        scored = []
        for row in filter(passes, made.live):
            vector = np.array(row.vector, np.float32)
            if asked.metric == "L2":
                score, sign = float(((vector - query) ** 2).sum()), 1
            elif asked.metric == "IP":
                score, sign = float(vector @ query), -1
            if asked.radius is not None and not sign * score < sign * asked.radius:
                continue
            if asked.range_filter is not None and not sign * score >= sign * asked.range_filter:
                continue
            scored.append((sign * score, row.key, score))
        answers.append([(key, score) for _, key, score in sorted(scored)[: asked.k]])
    return answers


def found(made: World, asked: Question) -> list[list[tuple[h.Key, float]]]:
    hits, counts = search(made.sources, asked)
    pairs = list(zip(hits.keys.tolist(), hits.scores.tolist(), strict=True))
    ends = np.cumsum([0, *counts])
    return [pairs[ends[i] : ends[i + 1]] for i in range(len(counts))]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_search_equals_brute_force(seed: int, text: bool) -> None:
    """For every metric, filter, range and k, ties at the k-th place included."""
    made = world(seed, text)
    for condition, passes in FILTERS.items():
        for k in (1, 7, 500):
            for metric in ("L2", "IP"):
                asked = question(made, condition, k=k, metric=metric)
                assert found(made, asked) == expected(made, asked, passes), (condition, k, metric)
        near = question(made, condition, radius=4.0, range_filter=1.0)
        assert found(made, near) == expected(made, near, passes), condition
        alike = question(made, condition, metric="IP", radius=1.0, range_filter=4.0)
        assert found(made, alike) == expected(made, alike, passes), condition


@pytest.mark.parametrize("text", [False, True])
def test_a_filter_on_keys_equals_brute_force(text: bool) -> None:
    """Keys named in a filter are looked up, alone or with another condition; unknown ones match nothing."""
    made = world(1, text)
    keys: list[Any] = [f"k{n}" for n in range(0, 40, 3)] if text else list(range(0, 40, 3))
    listed = str(keys).replace("'", '"')
    for condition, passes in (
        (f"id in {listed}", lambda row: row.key in keys),
        (f"id in {listed} and number < 5", lambda row: row.key in keys and row.number is not None and row.number < 5),
        (f"not (id in {listed})", lambda row: row.key not in keys),
        ('id == "nobody"' if text else "id == -1", lambda row: False),
    ):
        asked = question(made, condition, k=50)
        assert found(made, asked) == expected(made, asked, passes), condition
        assert count(made.sources, asked.condition) == sum(map(passes, made.live)), condition


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_scan_gives_the_first_rows_by_key(seed: int, text: bool) -> None:
    """With a limit, after a key, and in pages that together are everything."""
    made = world(seed, text)
    schema = h.schema(text)
    for condition, passes in FILTERS.items():
        compiled = Condition.of(condition, {}, schema)
        rows = sorted(filter(passes, made.live), key=lambda row: row.key)
        whole = scan(made.sources, compiled, schema, (h.PK, h.NUMBER, h.VECTOR), -1, None, False)
        assert [tuple(row.values()) for row in whole.to_pylist()] == [
            (row.key, row.number, list(row.vector)) for row in rows
        ]
        assert count(made.sources, compiled) == len(rows)

        pages: list[Any] = []
        while page := scan(made.sources, compiled, schema, (h.PK,), 9, pages[-1] if pages else None, False).column(0):
            pages += page.to_pylist()
        assert pages == [row.key for row in rows]


def test_rows_are_taken_in_the_order_asked_for() -> None:
    """From several sources, mixed, doubled, with nulls and vectors."""
    made = world(2)
    random = np.random.default_rng(0)
    numbers = random.integers(0, len(made.sources), 50).astype(np.int32)
    positions = np.array([random.integers(0, made.sources[n].rows) for n in numbers], np.int64)

    taken = take_rows(made.sources, numbers, positions, h.schema(), (h.VECTOR, h.NUMBER, h.PK))

    assert taken.schema.names == ["102", "101", "100"]
    for i, (number, position) in enumerate(zip(numbers, positions, strict=True)):
        source = made.sources[number]
        assert taken.column("100")[i].as_py() == source.keys[position].as_py()
        assert taken.column("101")[i].as_py() == source.table.column("101")[position].as_py()
        assert taken.column("102")[i].as_py() == source.vectors(h.VECTOR)[position].tolist()


def test_no_rows_have_the_columns_all_the_same() -> None:
    """The types are those of the fields, so that parts can be put together."""
    made = world(2)
    nothing = np.zeros(0, np.int64)

    taken = take_rows(made.sources, nothing.astype(np.int32), nothing, h.schema(), (h.PK, h.VECTOR))

    assert taken.schema.types == [pa.int64(), pa.list_(pa.float32(), h.DIM)]


def test_the_place_of_a_fresh_row_is_its_place_in_its_file() -> None:
    """A hit names file and position in that file (SearchHits), not where this reader happens to keep the row: another
    reader, or this one later, must find the same row there."""
    one, other = Tail(h.schema()), Tail(h.schema())
    files = {1: [1, 2, 3], 2: [10, 11]}
    for number in (1, 2):
        one.add(h.file(number, FileKind.ROWS, len(files[number]), number), h.batch(h.rows(files[number])), {})
    for number in (2, 1):
        other.add(h.file(number, FileKind.ROWS, len(files[number]), number), h.batch(h.rows(files[number])), {})
    compiled = Condition.of("", {}, h.schema())

    places = [
        scan(tail.sources((1, 2), 9), compiled, h.schema(), (h.PK,), -1, None, True).to_pydict()
        for tail in (one, other)
    ]

    assert places[0] == places[1]
    assert places[0]["$position"] == [0, 1, 2, 0, 1]


def test_text_keys_are_told_apart_by_every_byte() -> None:
    """A key that ends with a zero byte is another one than the key without it."""
    record = h.file(1, FileKind.SEGMENT, 2, 1)
    source = h.segment(record, [(row, 1) for row in h.rows(["a", "a\0"])]).source(1)

    assert source.keys_at(np.array([0, 1])).to_pylist() == ["a", "a\0"]


def test_masks_are_extended_where_a_block_has_grown_and_the_oldest_forgotten() -> None:
    """What is known is not computed again; no more masks are kept than the limit."""
    cache, asked = MaskCache(kept_max=2), []

    def compute(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.arange(start, stop) % 2 == 0

    assert cache.get("a", 3, lambda start: compute(start, 3)).tolist() == [True, False, True]
    assert cache.get("a", 5, lambda start: compute(start, 5)).tolist() == [True, False, True, False, True]
    assert cache.get("a", 2, lambda start: compute(start, 2)).tolist() == [True, False]
    assert asked == [(0, 3), (3, 5)]

    cache.get("b", 1, lambda start: compute(start, 1))
    cache.get("c", 1, lambda start: compute(start, 1))
    cache.get("a", 5, lambda start: compute(start, 5))
    assert asked[-1] == (0, 5)


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_a_range_gives_no_more_than_the_merge_can_keep(metric: str) -> None:
    """Per source the best k of each query, and those that tie with the k-th; the rest would only fill memory (P15)."""
    made = world(3)
    wide = question(made, "", k=3, metric=metric, radius=100.0 if metric == "L2" else -1.0)

    for source in made.sources:
        numbers, scores, positions = evaluate._in_range(source, source.alive, wide)
        assert len(numbers) == len(scores) == len(positions)
        for query in range(2):
            mine = scores[numbers == query]
            assert (mine[3:] == mine[2:3]).all()
    assert found(made, wide) == expected(made, wide, lambda row: True)


def test_a_narrow_filter_normalises_only_what_it_selects() -> None:
    """The scores are bit by bit those of the whole segment's copy, which is not made for them (I5, P15)."""
    content = [(h.Row(n, 1 if n == 50 else 2, (0.1 + n, 0.7)), 1) for n in range(100)]
    held = h.segment(h.file(1, FileKind.SEGMENT, 100, 1), content)
    made = World([held.source(1)], [row for row, _ in content], False)

    narrow = found(made, question(made, "number == 1", metric="COSINE", k=1))
    assert held._units == {}
    whole = found(made, question(made, "", metric="COSINE", k=100))

    assert [answer[0] in rest for answer, rest in zip(narrow, whole, strict=True)] == [True, True]
    assert held._units != {}


class Narrow:
    """An index that leaves everything to exact search."""

    bytes = 0

    def prefers_exact(self, count: int, nq: int, k: int, params: Any) -> bool:
        return True

    def search(self, *arguments: Any) -> Any:
        raise AssertionError("not asked")


@pytest.mark.parametrize("radius", [None, 0.5])
def test_exact_search_of_an_indexed_segment_makes_no_unit_vectors(radius: float | None) -> None:
    """By cosine its rows are normalised on the way, a block at a time, with the scores that unit vectors give."""
    content = [(h.Row(n, n, (1.0 + n % 5, float(n % 3))), 1) for n in range(60)]
    bare = h.segment(h.file(1, FileKind.SEGMENT, 60, 1), content)
    indexed = h.segment(h.file(1, FileKind.SEGMENT, 60, 1), content, indexes={7: Narrow()})
    made = World([], [], False)

    for text in ("", "number < 30"):
        asked = question(made, text, metric="COSINE", index_id=7, radius=radius)
        mine, counts = search([indexed.source(1)], asked)
        true, wanted = search([bare.source(1)], asked)

        assert mine.keys.tolist() == true.keys.tolist()
        assert mine.scores.tolist() == true.scores.tolist()
        assert counts.tolist() == wanted.tolist()
    assert bare.bytes > indexed.bytes
