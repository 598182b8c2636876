"""AUTOINDEX: we choose. HNSW with Milvus' own parameters for segments worth it, exact search for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mishards.index.hnsw import Hnsw


class AutoIndex(Hnsw):
    """`ports.IndexKind` for AUTOINDEX. `ef` may be given; build parameters are ours."""

    name = "AUTOINDEX"

    def check_build(self, params: Mapping[str, Any], dim: int) -> dict[str, Any]:
        return super().check_build({}, dim)


AUTOINDEX = AutoIndex()
