"""Mishards: a distributed vector database that looks like one Milvus server and grows by adding nodes."""

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`mishards.start`, imported when first asked for: it loads the whole server."""
    if name == "start":
        return import_module("mishards.server").start
    raise AttributeError(f"module 'mishards' has no attribute {name!r}")
