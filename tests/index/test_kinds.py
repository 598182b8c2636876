"""The built-in index types: the conformance suite, and what each promises beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mishards.errors import Kind, MishardsError
from mishards.index.auto import AUTOINDEX
from mishards.index.flat import FLAT
from mishards.index.hnsw import HNSW
from mishards.index.ivf import IVF_FLAT
from mishards.ports import IndexKind
from mishards.testing.index_suite import IndexSuite, build


class TestFlat(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return FLAT


class TestHnsw(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return HNSW


class TestIvfFlat(IndexSuite):
    @pytest.fixture
    def kind(self) -> IndexKind:
        return IVF_FLAT


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
        (AUTOINDEX, {"M": "nonsense"}, {"M": 18, "efConstruction": 240}),
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
    for kind in (HNSW, IVF_FLAT, AUTOINDEX):
        assert not kind.worthwhile(1000, 128)
        assert kind.worthwhile(100_000, 128)
    assert not FLAT.worthwhile(10_000_000, 128)
