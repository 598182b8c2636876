"""What every index type must do, compared with exact search: subclass `IndexSuite` and give it a `kind` fixture.

class TestMyIndex(IndexSuite):
    @pytest.fixture
    def kind(self): return MY_INDEX
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mishards.index.bitmaps import bitmap
from mishards.index.exact import exact_search
from mishards.index.metrics import larger_is_better, prepared
from mishards.ports import IndexKind, Matrix, VectorIndex

ROWS, DIM, K = 1500, 16, 10
RECALL_MIN = 0.9
METRICS = ["L2", "IP", "COSINE"]


class IndexSuite:
    """The contract of `ports.IndexKind` and `ports.VectorIndex`."""

    @pytest.fixture
    def vectors(self) -> Matrix:
        """Not normalised, and read-only as a mapped file is."""
        vectors = clustered(ROWS, seed=1)
        vectors.flags.writeable = False
        return vectors

    @pytest.fixture
    def queries(self) -> Matrix:
        return clustered(20, seed=2)

    @pytest.fixture(params=METRICS)
    def metric(self, request: pytest.FixtureRequest, kind: IndexKind) -> str:
        if request.param not in kind.metrics:
            pytest.skip(f"{kind.name} does not know {request.param}")
        return str(request.param)

    @pytest.fixture
    def index(self, kind: IndexKind, vectors: Matrix, metric: str, tmp_path: Path) -> VectorIndex:
        """Built, written, given a footer's bytes, and loaded."""
        return build(kind, vectors, metric, tmp_path)

    def test_the_nearest_rows_are_found(
        self, kind: IndexKind, index: VectorIndex, vectors: Matrix, queries: Matrix, metric: str
    ) -> None:
        """With default parameters at least nine in ten of the true nearest are found, best first, in metric form."""
        scores, positions = index.search(queries, K, kind.check_search({}, K), None)

        truth = exact_search(prepared(vectors, metric), queries, K, metric)[1]
        assert scores.shape == positions.shape == (len(queries), K)
        assert scores.dtype == np.float32
        assert positions.dtype == np.int64
        assert recall(positions, truth) >= RECALL_MIN
        check_hits(scores, positions, vectors, queries, metric)

    @pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
    def test_a_filter_costs_no_hits(
        self, kind: IndexKind, index: VectorIndex, vectors: Matrix, queries: Matrix, metric: str, share: float
    ) -> None:
        """Whatever share of the rows is allowed, only those are returned, as many as there are, and the nearest."""
        mask = np.random.default_rng(3).random(ROWS) < share

        scores, positions = index.search(queries, K, kind.check_search({}, K), bitmap(mask))

        truth = exact_search(prepared(vectors, metric), queries, K, metric, bitmap(mask))[1]
        assert np.array_equal(positions < 0, truth < 0)
        assert mask[positions[positions >= 0]].all()
        assert recall(positions, truth) >= RECALL_MIN
        check_hits(scores, positions, vectors, queries, metric)

    def test_a_filter_that_hides_what_is_nearest_costs_no_hits(
        self, kind: IndexKind, index: VectorIndex, vectors: Matrix, queries: Matrix, metric: str
    ) -> None:
        """Where just the nearest rows are not allowed (deleted, another tenant's), the next ones are found."""
        assert recall_behind(index, kind, vectors, queries, metric, hidden=20) >= RECALL_MIN

    def test_k_beyond_the_rows_returns_every_row_once(
        self, kind: IndexKind, index: VectorIndex, queries: Matrix
    ) -> None:
        """I6: asking for more rows than there are gives each row exactly once, then -1."""
        k = ROWS + 7

        _, positions = index.search(queries[:3], k, kind.check_search({}, k), None)

        assert np.array_equal(np.sort(positions[:, :ROWS]), np.tile(np.arange(ROWS), (3, 1)))
        assert (positions[:, ROWS:] == -1).all()

    def test_nothing_allowed_finds_nothing(self, kind: IndexKind, index: VectorIndex, queries: Matrix) -> None:
        """An empty filter gives -1 everywhere."""
        _, positions = index.search(queries, K, kind.check_search({}, K), bitmap(np.zeros(ROWS, bool)))

        assert (positions == -1).all()

    def test_a_score_is_that_of_exact_search(
        self, kind: IndexKind, index: VectorIndex, vectors: Matrix, queries: Matrix, metric: str
    ) -> None:
        """I12: bit by bit, so that attaching an index changes no score."""
        scores, positions = index.search(queries, K, kind.check_search({}, K), None)

        for query, score, at in zip(queries, scores, positions, strict=True):
            rows = np.sort(at)
            true, order = exact_search(prepared(vectors[rows], metric), query[None], K, metric)
            np.testing.assert_array_equal(score, true[0])
            np.testing.assert_array_equal(at, rows[order[0]])

    def test_a_build_tells_how_far_it_is_and_can_be_ended(
        self, kind: IndexKind, vectors: Matrix, metric: str, tmp_path: Path
    ) -> None:
        """Progress grows to 1, where it is told at all; what the callback raises ends the build."""
        told: list[float] = []
        kind.build(vectors, metric, kind.check_build({}, DIM), 1, tmp_path / "whole", told.append)

        assert told == sorted(told)
        assert all(0 <= share <= 1 for share in told)
        if told:
            assert told[-1] == 1

            def refuse(share: float) -> None:
                raise InterruptedError

            with pytest.raises(InterruptedError):
                kind.build(vectors, metric, kind.check_build({}, DIM), 1, tmp_path / "part", refuse)

    def test_few_selected_rows_are_searched_exactly(self, kind: IndexKind, index: VectorIndex) -> None:
        """For a handful of rows, or half of all, an index says that scoring them one by one is better."""
        params = kind.check_search({}, K)

        assert index.prefers_exact(2 * K, 1, K, params)
        assert index.prefers_exact(ROWS, 1, ROWS, kind.check_search({}, ROWS))

    def test_threads_may_search_together(self, kind: IndexKind, index: VectorIndex, queries: Matrix) -> None:
        """Searches from several threads at once, with and without a filter, give what one alone gives."""
        params = kind.check_search({}, K)
        filters = [None, bitmap(np.arange(ROWS) % 3 == 0)] * 8
        alone = [index.search(queries, K, params, each)[1] for each in filters]

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda each: index.search(queries, K, params, each)[1], filters))

        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))

    def test_one_row_can_be_indexed(
        self, kind: IndexKind, vectors: Matrix, queries: Matrix, metric: str, tmp_path: Path
    ) -> None:
        """The smallest segment there is works."""
        index = build(kind, vectors[:1], metric, tmp_path)

        _, positions = index.search(queries, 2, kind.check_search({}, 2), None)

        assert positions.tolist() == [[0, -1]] * len(queries)

    def test_a_zero_row_scores_zero_by_cosine(self, kind: IndexKind, queries: Matrix, tmp_path: Path) -> None:
        """A row without direction is neither near nor far, and is still found."""
        if "COSINE" not in kind.metrics:
            pytest.skip(f"{kind.name} does not know COSINE")
        index = build(kind, np.stack([queries[0], np.zeros(DIM, np.float32), -queries[0]]), "COSINE", tmp_path)

        scores, positions = index.search(queries[:1], 3, kind.check_search({}, 3), None)

        assert positions.tolist() == [[0, 1, 2]]
        assert scores[0] == pytest.approx([1, 0, -1], abs=1e-6)

    def test_memory_is_told(self, index: VectorIndex) -> None:
        """An index says what it takes beside the stored vectors, so that a reader can bound it."""
        assert index.bytes >= 0

    def test_parameters_come_as_strings(self, kind: IndexKind) -> None:
        """Checked parameters, sent again as clients send them, come out the same."""
        build_params, search_params = kind.check_build({}, DIM), kind.check_search({}, K)

        assert kind.check_build({name: str(value) for name, value in build_params.items()}, DIM) == build_params
        assert kind.check_search({name: str(value) for name, value in search_params.items()}, K) == search_params
        assert kind.check_search({"of no index": "x"}, K) == search_params


def clustered(rows: int, seed: int) -> Matrix:
    """Vectors around thirty centres, the same for every seed, as those of real data lie."""
    centres = np.random.default_rng(0).normal(1, 3, (30, DIM))
    rng = np.random.default_rng(seed)
    vectors: Matrix = (centres[rng.integers(0, len(centres), rows)] + rng.normal(0, 1, (rows, DIM))).astype(np.float32)
    return vectors


def build(kind: IndexKind, vectors: Matrix, metric: str, directory: Path) -> VectorIndex:
    target = directory / "index"
    kind.build(vectors, metric, kind.check_build({}, vectors.shape[1]), 1, target)
    with target.open("ab") as file:
        file.write(b"a footer that loading must not trip over")
    return kind.load(target, metric, vectors)


def recall(positions: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """The share of the true hits that were found; 1 when there are none."""
    found = sum(len(set(a[a >= 0]) & set(b[b >= 0])) for a, b in zip(positions, truth, strict=True))
    return found / max(1, int(np.count_nonzero(truth >= 0)))


def recall_behind(
    index: VectorIndex, kind: IndexKind, vectors: Matrix, queries: Matrix, metric: str, hidden: int
) -> float:
    """The recall where a filter hides the `hidden` nearest rows of each query."""
    rows, params, found = prepared(vectors, metric), kind.check_search({}, K), []
    for query in queries:
        allowed = np.ones(len(rows), bool)
        allowed[exact_search(rows, query[None], hidden, metric)[1]] = False
        _, positions = index.search(query[None], K, params, bitmap(allowed))
        assert allowed[positions].all()
        found.append(recall(positions, exact_search(rows, query[None], K, metric, bitmap(allowed))[1]))
    return float(np.mean(found))


def check_hits(scores: Matrix, positions: NDArray[np.int64], vectors: Matrix, queries: Matrix, metric: str) -> None:
    """No row twice, best first, padding last, each score that of its row."""
    rows = prepared(vectors, metric).astype(np.float64)
    for query, score, at in zip(prepared(queries, metric).astype(np.float64), scores, positions, strict=True):
        n = int(np.count_nonzero(at >= 0))
        assert (at[:n] >= 0).all()
        assert len(set(at[:n])) == n
        worse = np.diff(score[:n]) <= 0 if larger_is_better(metric) else np.diff(score[:n]) >= 0
        assert worse.all()
        true = ((rows[at[:n]] - query) ** 2).sum(1) if metric == "L2" else rows[at[:n]] @ query
        assert np.allclose(score[:n], true, rtol=1e-4, atol=1e-4)
