"""Mishards: a distributed vector database that looks like one Milvus server and grows by adding nodes."""

__version__ = "0.1.0"
