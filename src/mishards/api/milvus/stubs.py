"""Milvus' messages, as pymilvus' generated stubs have them, without pymilvus itself.

Importing pymilvus takes half a second and 60 MiB (pandas and two clients), of which a server needs none; the stubs need
nothing of it but the name of the package they lie in.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_PACKAGE = "pymilvus"
_STUBS = f"{_PACKAGE}.grpc_gen"


def _loaded(name: str) -> Any:
    """The stub module of that name. A later `import pymilvus` of the same process finds it there."""
    if _PACKAGE in sys.modules or _STUBS in sys.modules:
        return importlib.import_module(f"{_STUBS}.{name}")
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)  # its path, nothing run
    try:
        return importlib.import_module(f"{_STUBS}.{name}")
    finally:
        del sys.modules[_PACKAGE]


common_pb2 = _loaded("common_pb2")
milvus_pb2 = _loaded("milvus_pb2")
schema_pb2 = _loaded("schema_pb2")
