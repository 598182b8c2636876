"""The built-in index types: the conformance suite, and what each promises beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mishards.errors import Kind, MishardsError
from mishards.index.auto import AUTOINDEX, fits_half
from mishards.index.bitmaps import bitmap
from mishards.index.exact import exact_search
from mishards.index.flat import FLAT
from mishards.index.hnsw import HNSW, HNSW_SQ
from mishards.index.ivf import IVF_FLAT, IVF_PQ, IVF_SQ8, SCANN
from mishards.index.metrics import prepared
from mishards.ports import IndexKind
from mishards.testing.index_suite import METRICS, IndexSuite, build, clustered, recall, recall_behind


class TestFlat(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return FLAT


class TestHnsw(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return HNSW


@pytest.mark.parametrize("kind", [HNSW, HNSW_SQ, AUTOINDEX], ids=lambda kind: kind.name)
@pytest.mark.parametrize("metric", METRICS)
def test_no_filter_makes_a_graph_blind(kind: IndexKind, metric: str, tmp_path: Path) -> None:
    """Where a filter hides a tenth or half of the rows, those around the query, the walk goes past them."""
    vectors, queries = clustered(1500, seed=1), clustered(10, seed=2)
    index = build(kind, vectors, metric, tmp_path)

    for hidden in (150, 750):
        assert recall_behind(index, kind, vectors, queries, metric, hidden) >= 0.9


def test_all_rows_may_be_scored_again_where_some_are_deleted(tmp_path: Path) -> None:
    """HNSW_SQ with a refine_k that asks for every row, a few of them not allowed, gives what exact search gives."""
    vectors, queries = clustered(300, seed=1), clustered(10, seed=2)
    index = build(HNSW_SQ, vectors, "L2", tmp_path)
    alive = np.arange(300) % 50 > 0

    _, positions = index.search(queries, 10, {"ef": 64, "refine_k": 1000}, bitmap(alive))

    np.testing.assert_array_equal(positions, exact_search(vectors, queries, 10, "L2", bitmap(alive))[1])


class TestIvfFlat(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return IVF_FLAT


class TestHnswSq(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return HNSW_SQ


class TestIvfSq8(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return IVF_SQ8


class TestIvfPq(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return IVF_PQ


class TestScann(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return SCANN


class TestAutoIndex(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return AUTOINDEX


@pytest.mark.parametrize(
    ("kind", "params", "checked"),
    [
        (HNSW, {}, {"M": 18, "efConstruction": 240}),
        (HNSW, {"M": "2", "efConstruction": 1}, {"M": 2, "efConstruction": 1}),
        (HNSW, {"M": 2048.0}, None),
        (IVF_FLAT, {"nlist": "65536"}, {"nlist": 65536}),
        (IVF_SQ8, {}, {}),
        (IVF_PQ, {}, {"m": 2, "nbits": 8}),
        (IVF_PQ, {"m": "4", "nbits": "6", "nlist": 10}, {"m": 4, "nbits": 6, "nlist": 10}),
        (IVF_PQ, {"m": 2.5}, None),
        (SCANN, {"with_raw_data": "false", "nlist": "10"}, {"with_raw_data": False, "nlist": 10}),
        (
            HNSW_SQ,
            {"sq_type": "fp16", "refine": "true", "refine_type": "fp32"},
            {"M": 18, "efConstruction": 240, "sq_type": "FP16", "refine": True, "refine_type": "FP32"},
        ),
        (AUTOINDEX, {"M": "nonsense"}, {}),
        (FLAT, {"nlist": 3}, {}),
    ],
)
def test_build_parameters_are_typed(kind: IndexKind, params: dict[str, Any], checked: dict[str, int] | None) -> None:
    """Strings and numbers become integers, missing ones their defaults; a fraction is refused."""
    if checked is None:
        with pytest.raises(MishardsError, match="should be integer"):
            kind.check_build(params, 8)
    else:
        assert kind.check_build(params, 8) == checked


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (HNSW, {"M": 1}, r"Out of range in json: param 'M' \(1\) should be in range \[2, 2048\]"),
        (HNSW, {"M": 2049}, r"param 'M' \(2049\)"),
        (HNSW, {"efConstruction": "0"}, r"param 'efConstruction' \(0\) should be in range \[1, 2147483647\]"),
        (HNSW, {"M": "many"}, r"Type conflict in json: param 'M' \(many\) should be integer"),
        (HNSW, {"M": True}, r"param 'M' \(True\) should be integer"),
        (IVF_FLAT, {"nlist": 0}, r"param 'nlist' \(0\) should be in range \[1, 65536\]"),
        (IVF_FLAT, {"nlist": 65537}, r"param 'nlist' \(65537\)"),
        (IVF_PQ, {"m": 3}, r"should be a multiple of m. Dimension:8, m:3"),
        (IVF_PQ, {"nbits": 17}, r"param 'nbits' \(17\) should be in range \[1, 16\]"),
        (SCANN, {"with_raw_data": "perhaps"}, r"param 'with_raw_data' \(perhaps\) should be boolean"),
        (HNSW_SQ, {"sq_type": "SQ4"}, r"invalid param 'sq_type' \(SQ4\), expected one of: SQ6, SQ8, BF16, FP16"),
        (
            HNSW_SQ,
            {"sq_type": "FP16", "refine_type": "SQ8"},
            r"refine_type \(SQ8\) should be more precise than sq_type \(FP16\)",
        ),
    ],
)
def test_wrong_build_parameters_are_refused(kind: IndexKind, params: dict[str, Any], message: str) -> None:
    """The error is Milvus': the parameter, its value and its range."""
    with pytest.raises(MishardsError, match=message) as raised:
        kind.check_build(params, 8)

    assert raised.value.kind is Kind.PARAMETER_INVALID


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (HNSW, {"ef": 8}, r"ef\(8\) should be larger than k\(10\)"),
        (AUTOINDEX, {"ef": "8"}, r"ef\(8\) should be larger than k\(10\)"),
        (HNSW, {"ef": 0}, r"param 'ef' \(0\)"),
        (IVF_FLAT, {"nprobe": 0}, r"param 'nprobe' \(0\) should be in range \[1, 65536\]"),
        (IVF_FLAT, {"nprobe": 65537}, r"param 'nprobe' \(65537\)"),
        (IVF_FLAT, {"nprobe": "all"}, r"param 'nprobe' \(all\) should be integer"),
        (AUTOINDEX, {"level": 11}, r"param 'level' \(11\) should be in range \[1, 10\]"),
        (SCANN, {"reorder_k": 9}, r"reorder_k\(9\) should be larger than k\(10\)"),
        (HNSW_SQ, {"refine_k": 0.5}, r"param 'refine_k' \(0.5\) should be in range \[1, "),
        (HNSW_SQ, {"refine_k": "much"}, r"param 'refine_k' \(much\) should be float"),
    ],
)
def test_wrong_search_parameters_are_refused(kind: IndexKind, params: dict[str, Any], message: str) -> None:
    """The error is Milvus': the parameter, its value and its range."""
    with pytest.raises(MishardsError, match=message):
        kind.check_search(params, 10)


def test_a_large_k_widens_the_default_walk() -> None:
    """Without `ef` a search for more than the default breadth is no error."""
    assert HNSW.check_search({}, 1000) == {"ef": 1000}
    assert HNSW.check_search({}, 10) == {"ef": 64}


@pytest.mark.parametrize("rows", [1, 100, 39 * 5 + 1])
def test_clusters_fit_the_segment(tmp_path: Path, rows: int) -> None:
    """A small segment gets fewer clusters than asked for, and scanning all of them is exact."""
    vectors = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)

    index = build(IVF_FLAT, vectors, "L2", tmp_path)

    _, positions = index.search(vectors, 1, {"nprobe": "65536"}, None)
    assert positions[:, 0].tolist() == list(range(rows))


def test_small_segments_need_no_index() -> None:
    """Where a scan is as fast as a walk no index is built; FLAT never is."""
    for kind in (HNSW, HNSW_SQ, IVF_FLAT, IVF_SQ8, IVF_PQ, SCANN, AUTOINDEX):
        assert not kind.worthwhile(1000, 128)
        assert kind.worthwhile(100_000, 128)
    assert not FLAT.worthwhile(10_000_000, 128)


def test_auto_chooses_by_size_and_by_how_near_rows_lie(tmp_path: Path) -> None:
    """Codes of 16 bits where they keep neighbours apart; float32 where they would not, or cannot hold the numbers."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 32)).astype(np.float32)
    crowded = (1000 + vectors * 0.01).astype(np.float32)
    vast = vectors * 1e30

    assert fits_half(vectors, "L2")
    assert fits_half(vast, "COSINE")  # scaled to length one
    assert not fits_half(crowded, "L2")
    assert not fits_half(vast, "L2")
    for rows in (vectors, crowded):
        index = build(AUTOINDEX, rows, "L2", tmp_path)
        _, positions = index.search(rows[:50], 1, AUTOINDEX.check_search({}, 1), None)
        assert positions[:, 0].tolist() == list(range(50))


def test_level_widens_a_search(tmp_path: Path) -> None:
    """AUTOINDEX finds no less at a higher level, and what `ef` asks for is what is searched."""
    vectors = np.random.default_rng(0).normal(size=(5000, 48)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(30, 48)).astype(np.float32)
    index = build(AUTOINDEX, vectors, "L2", tmp_path)
    truth = exact_search(vectors, queries, 10, "L2")[1]

    found = [recall(index.search(queries, 10, params, None)[1], truth) for params in ({"ef": 10}, {}, {"level": 10})]

    assert found[0] < found[1] <= found[2]
    assert found[2] > 0.99


def test_a_graph_by_distance_holds_no_vectors(tmp_path: Path) -> None:
    """HNSW's file for L2 and IP is the graph: it walks over the segment's own vectors, so they lie in memory once."""
    vectors = np.random.default_rng(0).normal(size=(1000, 256)).astype(np.float32)

    sizes = {metric: build(HNSW, vectors, metric, tmp_path).bytes for metric in ("L2", "IP", "COSINE")}

    assert sizes["L2"] < vectors.nbytes / 4
    assert sizes["IP"] < vectors.nbytes / 4
    assert sizes["COSINE"] > vectors.nbytes


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_graph_that_is_gone_maps_nothing(tmp_path: Path) -> None:
    """Dropping a loaded index gives its file's mapping back, also where it walked over attached vectors."""
    vectors = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    index = build(HNSW, vectors, "L2", tmp_path)
    mapped = str(tmp_path / "index")
    assert mapped in Path("/proc/self/maps").read_text()

    del index

    assert mapped not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("metric", METRICS)
def test_a_number_that_float32_cannot_square_ends_no_build(metric: str, tmp_path: Path) -> None:
    """FAISS would end the process when it learns clusters from it. The other rows are found as before."""
    vectors, queries = clustered(3000, seed=1), clustered(20, seed=2)
    vectors[0] = 3e38

    index = build(IVF_FLAT, vectors, metric, tmp_path)

    others = bitmap(np.arange(3000) > 0)
    ready = prepared(vectors, metric)
    truth = exact_search(ready, queries, 10, metric, others)[1]
    assert recall(index.search(queries, 10, {"nprobe": 128}, others)[1], truth) >= 0.95
