"""Milvus' messages, as pymilvus' generated stubs have them, without pymilvus itself.

Importing pymilvus takes half a second and 70 MiB (pandas, grpcio and two clients), of which a server needs none; the
stubs need nothing of it but the names of the packages they lie in.
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
    bare = [package for package in (_PACKAGE, _STUBS) if package not in sys.modules]
    try:
        for package in bare:
            spec = importlib.util.find_spec(package)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            sys.modules[package] = importlib.util.module_from_spec(spec)  # its path, nothing run
        return importlib.import_module(f"{_STUBS}.{name}")
    finally:
        for package in bare:
            sys.modules.pop(package, None)


common_pb2 = _loaded("common_pb2")
milvus_pb2 = _loaded("milvus_pb2")
schema_pb2 = _loaded("schema_pb2")
