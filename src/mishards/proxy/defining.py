"""What a proxy checks of DDL before it asks a writer: index types and parameters against their plug-ins.

Names and schemas are checked by the door's translation (`schema/`); existence and conflicts by the writer.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DataType, Field
from mishards.ports import IndexKind
from mishards.proxy.catalog import Catalog
from mishards.wire.definitions import AnyDefinition, CreateIndex

SCALAR_INDEXES = frozenset({"AUTOINDEX", "INVERTED", "STL_SORT", "TRIE", "BITMAP", ""})
DEFAULT_METRIC = "COSINE"  # what Milvus takes when a client names none


async def checked(definition: AnyDefinition, catalog: Catalog, index_kind: Callable[[str], IndexKind]) -> AnyDefinition:
    """The definition, parameters completed and typed. PARAMETER_INVALID, INDEX_NOT_SUPPORTED, FIELD_NOT_FOUND."""
    if not isinstance(definition, CreateIndex):
        return definition
    collection = (await catalog.fresh(definition.database, definition.collection)).collection
    field = collection.schema.field(definition.field)
    if field is None or field.dynamic:
        raise MishardsError(
            Kind.FIELD_NOT_FOUND,
            f"cannot create index on non-exist field: {definition.field}[collection={collection.name}]",
        )
    if field.type is DataType.FLOAT_VECTOR:
        return _checked_vector_index(definition, field, index_kind)
    return _checked_scalar_index(definition, field)


def _checked_vector_index(definition: CreateIndex, field: Field, index_kind: Callable[[str], IndexKind]) -> CreateIndex:
    type_name = definition.type.upper() or "AUTOINDEX"
    kind = index_kind(type_name)
    metric = definition.metric.upper() or DEFAULT_METRIC
    if metric not in kind.metrics:
        known = ", ".join(sorted(kind.metrics))
        raise invalid(f"metric type {metric} not supported for index {type_name}, supported: [{known}]")
    params = kind.check_build(definition.params, field.dim)
    return replace(definition, type=type_name, metric=metric, params=params, name=definition.name or field.name)


def _checked_scalar_index(definition: CreateIndex, field: Field) -> CreateIndex:
    """Recorded and described back; filters scan columns, which a scalar index does not change."""
    type_name = definition.type.upper()
    if type_name not in SCALAR_INDEXES:
        raise MishardsError(
            Kind.INDEX_NOT_SUPPORTED,
            f"index type {type_name} is not supported on field '{field.name}' of type {field.type.name}",
        )
    return replace(definition, type=type_name or "AUTOINDEX", metric="", params={}, name=definition.name or field.name)
