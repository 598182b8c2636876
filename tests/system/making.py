"""Collections as the system tests make them."""

from __future__ import annotations

from typing import Any

from pymilvus import DataType, MilvusClient


def make_collection(
    client: MilvusClient,
    name: str,
    *,
    dim: int = 8,
    metric: str = "L2",
    index: str = "FLAT",
    key: DataType = DataType.INT64,
    auto_id: bool = False,
    dynamic: bool = False,
    fields: dict[str, dict[str, Any]] | None = None,
    **arguments: Any,
) -> None:
    """A collection with primary key `id`, vector field `vector`, an index on it, and loaded."""
    schema = client.create_schema(auto_id=auto_id, enable_dynamic_field=dynamic)
    schema.add_field("id", key, is_primary=True, **({"max_length": 64} if key is DataType.VARCHAR else {}))
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    for field, options in (fields or {}).items():
        schema.add_field(field, **options)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type=index, metric_type=metric)
    client.create_collection(name, schema=schema, index_params=indexes, **arguments)
