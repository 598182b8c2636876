"""The shape of a search: all of it but the query vectors, checked once and kept (P18).

Clients ask the same question with other vectors again and again. What the checks of its words find out (field, index,
filter, columns) holds as long as the collection's definition does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from mishards.errors import Kind, MishardsError, invalid
from mishards.model import Collection, DataType, Field, Index
from mishards.ports import IndexKind
from mishards.proxy.filters import compiled
from mishards.proxy.requests import SearchRequest
from mishards.schema.output import Output, resolve_output

SHAPES_KEPT_MAX = 1024
KEY_BYTES_MAX = 4096  # longer ones, such as filters that list thousands of keys, are not worth keeping

_NO_QUERIES = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Shape:
    """`request` has no queries; `key` is equal for equal shapes over the same definition."""

    key: bytes
    request: SearchRequest
    field: Field
    index: Index
    output: Output
    text_keys: bool

    @property
    def k(self) -> int:
        """Hits wanted of every part."""
        return self.request.limit + self.request.offset


class Shapes:
    """Checks searches and remembers what it has checked."""

    def __init__(self, index_kind: Callable[[str], IndexKind]) -> None:
        self._index_kind = index_kind
        self._known: dict[bytes, Shape] = {}

    async def of(self, request: SearchRequest, collection: Collection) -> Shape:
        """The shape, and nothing wrong with it. PARAMETER_INVALID and what a filter or field name can raise."""
        key = _key(request, collection)
        shape = self._known.get(key)
        if shape is None:
            shape = await self._checked(key, request, collection)
            if len(key) <= KEY_BYTES_MAX:
                if len(self._known) >= SHAPES_KEPT_MAX:
                    self._known.clear()
                self._known[key] = shape
        return shape

    async def _checked(self, key: bytes, request: SearchRequest, collection: Collection) -> Shape:
        schema = collection.schema
        field = vector_field(collection, request.field)
        index = collection.index_of(field.id)
        if index is None:
            raise MishardsError(Kind.INDEX_NOT_FOUND, f"index not found[collection={collection.name}]")
        if request.metric and request.metric.upper() != index.metric:
            raise invalid(
                f"metric type not match: invalid parameter[expected={index.metric}][actual={request.metric.upper()}]"
            )
        check_range(request, index.metric)
        self._index_kind(index.type).check_search(request.params, request.limit + request.offset)
        await compiled(request.filter, schema, request.template)
        return Shape(
            key=key,
            request=msgspec.structs.replace(request, queries=_NO_QUERIES),
            field=field,
            index=index,
            output=resolve_output(schema, request.output),
            text_keys=schema.primary.type is DataType.VARCHAR,
        )


def vector_field(collection: Collection, name: str) -> Field:
    """The field to search; "" means the only vector field."""
    vectors = collection.schema.vectors
    if not name:
        if len(vectors) != 1:
            names = ", ".join(field.name for field in vectors)
            raise invalid(f"multiple anns_fields exist, please specify a anns_field in search_params: {names}")
        return vectors[0]
    field = collection.schema.field(name)
    if field is None:
        raise MishardsError(Kind.FIELD_NOT_FOUND, f"failed to get field schema by name: fieldName({name}) not found")
    if not field.is_vector:
        raise invalid(f"field {name} is of type {field.type.name}, a search needs a FLOAT_VECTOR field")
    return field


def check_range(request: SearchRequest, metric: str) -> None:
    """The bounds of a range search."""
    if request.radius is None or request.range_filter is None:
        if request.range_filter is not None:
            raise invalid(f"range_filter {request.range_filter} is given without radius, a range search needs radius")
        return
    if metric == "L2" and request.range_filter >= request.radius:
        raise invalid(
            f"range_filter must be less than radius for L2, got range_filter {request.range_filter},"
            f" radius {request.radius}"
        )
    if metric != "L2" and request.range_filter <= request.radius:
        raise invalid(
            f"range_filter must be greater than radius for {metric}, got range_filter {request.range_filter},"
            f" radius {request.radius}"
        )


def _key(request: SearchRequest, collection: Collection) -> bytes:
    """Every part of the request that the answer depends on, but the vectors; and the definition's own version."""
    return _ENCODER.encode(
        (
            collection.id,
            collection.updated_ts,
            request.partitions,
            request.filter,
            request.template,
            request.output,
            request.limit,
            request.offset,
            request.field,
            request.metric,
            request.params,
            request.radius,
            request.range_filter,
        )
    )


_ENCODER = msgspec.msgpack.Encoder()
