"""The data: real sentence embeddings, and clustered synthetic vectors that anybody can make again.

Rows have an id 0..n-1, a vector `v` and a number `n`, 0 to 99 at random, for filters: `n < 10` passes 10 %. Exact
answers are computed once by brute force and kept in `bench/.cache`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CACHE = Path(__file__).parent / ".cache"
PERCENTS = (100, 50, 10, 1)  # of the rows that a filter passes, for which the truth is known
TRUTH_K = 100
QUERIES = 1_000
SPREAD, NOISE = 0.7, 3.0  # with HNSW of M 16, ef 16 then finds about 90 % and ef 64 99 % of the neighbours
SLACK = 1e-4  # relative: scores that close count as equal

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Vectors, queries, and per filter the scores of the exact answers (queries, TRUTH_K), best first.

    Scores here are always better when larger: negative squared distances for L2. `queries_file` and `vectors_file` hold
    the same arrays for other processes.
    """

    name: str
    metric: str
    vectors: Matrix
    queries: Matrix
    numbers: NDArray[np.int64]
    truth: dict[int, Matrix]
    folder: Path

    @property
    def rows(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def title(self) -> str:
        return f"{self.name} ({self.rows:,} x {self.dim}, {self.metric})"

    @property
    def vectors_file(self) -> Path:
        return self.folder / "vectors.npy"

    @property
    def queries_file(self) -> Path:
        return self.folder / "queries.npy"

    def recall(self, answers: Sequence[tuple[int, Sequence[int]]], k: int, percent: int) -> float:
        """The mean share of the k best rows that the answers have; an answer is (number of the query, ids).

        A row counts if its score is one of the k best, so that ties are no mistakes, and only once."""
        return float(np.mean([self._share(query, ids, k, percent) for query, ids in answers])) if answers else 0.0

    def wrong(self, answers: Sequence[tuple[int, Sequence[int]]], percent: int) -> int:
        """How many answers hold a row that the filter refuses, or one row twice."""
        return sum(len(set(ids)) < len(ids) or bool((self._of(ids) >= percent).any()) for _, ids in answers)

    def _of(self, ids: Sequence[int]) -> NDArray[np.int64]:
        return self.numbers[np.asarray(ids, np.int64)]

    def _share(self, query: int, ids: Sequence[int], k: int, percent: int) -> float:
        passed = [id for id in set(ids) if self.numbers[id] < percent]
        if not passed:
            return 0.0
        scores = closeness(self.queries[query : query + 1], self.vectors[passed], self.metric)[0]
        worst = self.truth[percent][query, k - 1]
        return min(k, int((scores >= worst - SLACK * abs(worst)).sum())) / k


def clustered(rows: int, dim: int = 128, seed: int = 7, cache: Path = CACHE) -> Dataset:
    """About as hard as SIFT: 300 centres in 20 latent dimensions, embedded linearly, plus noise."""
    name = f"clustered-{rows}x{dim}-{seed}"
    rng = np.random.default_rng(seed)
    centres, embedding = rng.standard_normal((300, 20)), rng.standard_normal((20, dim))
    chosen = rng.integers(0, len(centres), rows + QUERIES)
    latent = centres[chosen] + SPREAD * rng.standard_normal((rows + QUERIES, 20))
    made = (latent @ embedding + NOISE * rng.standard_normal((rows + QUERIES, dim))).astype(np.float32)
    return _with_truth("clustered", "L2", made[:rows], made[rows:], cache / name)


def packages(folder: Path, rows: int | None = None) -> Dataset:
    """Sentence embeddings of Debian packages: `packages_vectors.npy` and `packages_queries.npz` of the folder."""
    vectors = np.load(folder / "packages_vectors.npy")[:rows].astype(np.float32)
    queries = np.load(folder / "packages_queries.npz")["vectors"][:QUERIES].astype(np.float32)
    return _with_truth("packages", "COSINE", vectors, queries, CACHE / f"packages-{len(vectors)}")


def closeness(queries: Matrix, vectors: Matrix, metric: str) -> Matrix:
    """Scores (queries, vectors), larger is better."""
    scores: Matrix = queries @ vectors.T
    if metric == "L2":
        squares = np.einsum("ij,ij->i", vectors, vectors)
        scores = 2 * scores - squares - np.einsum("ij,ij->i", queries, queries)[:, None]
    else:
        scores /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    return scores


def best_scores(queries: Matrix, vectors: Matrix, metric: str, k: int, block: int = 16_384) -> Matrix:
    """The k best scores of each query, best first; -inf where there are fewer rows."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(vectors), block):
        scores = np.hstack([best, closeness(queries, vectors[start : start + block], metric)])
        best = -np.partition(-scores, k - 1, axis=1)[:, :k]
    return -np.sort(-best, axis=1)


def _with_truth(name: str, metric: str, vectors: Matrix, queries: Matrix, kept: Path) -> Dataset:
    digest = hashlib.sha256(vectors.tobytes() + queries.tobytes()).hexdigest()[:12]
    folder = kept.with_name(f"{kept.name}-{digest}")
    numbers = np.random.default_rng(1).integers(0, 100, len(vectors))
    if not (folder / "truth.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "queries.npy", queries)
        found = {
            str(percent): best_scores(queries, vectors[numbers < percent], metric, TRUTH_K) for percent in PERCENTS
        }
        np.savez(folder / "truth.npz", **found)  # type: ignore[arg-type]  # last: says that the folder is complete
    with np.load(folder / "truth.npz") as stored:
        truth = {percent: stored[str(percent)] for percent in PERCENTS}
    return Dataset(name, metric, vectors, queries, numbers, truth, folder)
