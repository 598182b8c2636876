"""The data of the benchmarks: exact answers, recall, and what counts as wrong."""

import numpy as np
import pytest

from bench import data as bench_data
from bench.data import TRUTH_K, Dataset, best_scores, clustered


@pytest.mark.parametrize("metric", ["L2", "COSINE"])
def test_best_scores_are_those_of_a_full_sort(metric: str) -> None:
    """Going through the rows block by block finds the same best scores as sorting all."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((500, 8)).astype(np.float32)
    queries = rng.standard_normal((7, 8)).astype(np.float32)

    found = best_scores(queries, vectors, metric, k=20, block=64)

    everything = -np.sort(-bench_data.closeness(queries, vectors, metric), axis=1)
    np.testing.assert_allclose(found, everything[:, :20], rtol=1e-4)


def test_data_are_the_same_each_time(small: Dataset) -> None:
    """A seed gives the same vectors, and the truth that was kept is used again."""
    again = clustered(2_000, dim=16, cache=small.folder.parent)

    assert np.array_equal(again.vectors, small.vectors)
    assert again.folder == small.folder
    assert {percent: scores.shape for percent, scores in again.truth.items()} == dict.fromkeys(
        small.truth, (len(small.queries), TRUTH_K)
    )


@pytest.mark.parametrize("percent", [100, 10])
def test_recall_counts_the_best_rows_once(small: Dataset, percent: int) -> None:
    """The exact answer has recall 1, half of it 0.5, and repeating a row adds nothing."""
    passing = np.flatnonzero(small.numbers < percent)
    scores = bench_data.closeness(small.queries[:1], small.vectors[passing], small.metric)[0]
    best = passing[np.argsort(-scores)[:10]].tolist()

    assert small.recall([(0, best)], 10, percent) == 1.0
    assert small.recall([(0, best[:5])], 10, percent) == 0.5
    assert small.recall([(0, [best[0]] * 10)], 10, percent) == 0.1
    assert small.recall([(0, [])], 10, percent) == 0.0


def test_rows_that_the_filter_refuses_are_wrong(small: Dataset) -> None:
    """An answer is wrong that has a row outside of the filter, or one row twice."""
    inside, outside = (int(np.flatnonzero(mask)[0]) for mask in (small.numbers < 10, small.numbers >= 10))

    assert small.wrong([(0, [inside]), (1, [])], 10) == 0
    assert small.wrong([(0, [inside, outside]), (1, [inside, inside])], 10) == 2
    assert small.recall([(0, [outside])], 10, 10) == 0.0
