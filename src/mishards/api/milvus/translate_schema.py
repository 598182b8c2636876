"""Collections between protobuf and the model: what a client declares, and what it is told back.

The ORM compares the schema it declared with the one described, so nothing that was accepted may get lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mishards.api.milvus.stubs import common_pb2, milvus_pb2, schema_pb2
from mishards.clock import LOGICAL_BITS
from mishards.errors import Kind, MishardsError, invalid
from mishards.model import Collection, Consistency, DataType, Field, Schema
from mishards.schema.definition import FieldSpec, check_shards, define_schema
from mishards.schema.expiry import check_ttl
from mishards.schema.names import check_collection_name
from mishards.wire import definitions

# the members of ValueField, and the type of a field whose default travels in each
_DEFAULT_TYPES: Final = {
    "bool_data": DataType.BOOL,
    "int_data": DataType.INT32,
    "long_data": DataType.INT64,
    "float_data": DataType.FLOAT,
    "double_data": DataType.DOUBLE,
    "string_data": DataType.VARCHAR,
    "bytes_data": DataType.JSON,
}
_DEFAULT_MEMBERS: Final = {
    DataType.BOOL: "bool_data",
    DataType.INT8: "int_data",
    DataType.INT16: "int_data",
    DataType.INT32: "int_data",
    DataType.INT64: "long_data",
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.VARCHAR: "string_data",
}
# Properties that would change answers and are not served: refused unless switched off.
_UNSERVED_PROPERTIES: Final = (
    "ttl_field",
    "partitionkey.isolation",
    "dynamicfield.enabled",
    "consistency_level",
)
_OFF: Final = ("", "0", "-1", "false", "none")


def pairs_of(pairs: Iterable[Any]) -> dict[str, str]:
    """KeyValuePairs as a dict; of a key given twice the last value."""
    return {pair.key: pair.value for pair in pairs}


def key_values(values: Mapping[str, str]) -> list[Any]:
    return [common_pb2.KeyValuePair(key=key, value=value) for key, value in values.items()]


def unix_ms(ts: int) -> int:
    """The wall clock part of a hybrid timestamp."""
    return ts >> LOGICAL_BITS


def consistency_of(level: int) -> Consistency:
    try:
        return Consistency(level)
    except ValueError:
        raise invalid(f"consistency_level [{level}] is invalid, should be in range [0, {max(Consistency)}]") from None


# ----------------------------------------------------------------------------------------------------------- requests


def create_collection(request: Any, database: str) -> definitions.CreateCollection:
    """What a CreateCollectionRequest defines. PARAMETER_INVALID, UNSUPPORTED."""
    check_collection_name(request.collection_name)
    if request.num_partitions > 0:
        raise invalid("num_partitions should only be specified with partition key field enabled")
    properties = pairs_of(request.properties)
    check_properties(properties)
    return definitions.CreateCollection(
        database=database,
        collection=request.collection_name,
        schema=_schema(schema_pb2.CollectionSchema.FromString(request.schema)),
        shards=check_shards(request.shards_num),
        consistency=consistency_of(request.consistency_level),
        properties=properties,
    )


def check_properties(properties: Mapping[str, str]) -> None:
    """Refuse properties that promise what is not served, or make no sense. Others are stored and described back."""
    check_ttl(properties)
    for key in _UNSERVED_PROPERTIES:
        value = properties.get(key, "")
        if value.strip().lower() not in _OFF:
            raise MishardsError(Kind.UNSUPPORTED, f"collection property {key} is not supported, got {value!r}")


def _schema(proto: Any) -> Schema:
    for feature, given in (
        ("function", proto.functions),
        ("struct array field", proto.struct_array_fields),
        ("namespace", proto.enable_namespace),
        ("external source", proto.external_source or proto.external_spec),
    ):
        if given:
            raise MishardsError(Kind.UNSUPPORTED, f"{feature} in a collection's schema is not supported")
    specs = [_spec(field) for field in proto.fields]
    return define_schema(specs, description=proto.description, dynamic=proto.enable_dynamic_field)


def _spec(proto: Any) -> FieldSpec:
    if proto.is_function_output:
        raise MishardsError(Kind.UNSUPPORTED, f"function output is not supported, field {proto.name}")
    if proto.external_field:
        raise MishardsError(Kind.UNSUPPORTED, f"external field is not supported, field {proto.name}")
    member = proto.default_value.WhichOneof("data")
    if member is not None and member not in _DEFAULT_TYPES:
        raise MishardsError(Kind.UNSUPPORTED, f"default_value in {member} is not supported, field {proto.name}")
    return FieldSpec(
        name=proto.name,
        type=proto.data_type,
        description=proto.description,
        primary_key=proto.is_primary_key,
        auto_id=proto.autoID,
        nullable=proto.nullable,
        partition_key=proto.is_partition_key,
        clustering_key=proto.is_clustering_key,
        dynamic=proto.is_dynamic,
        params=pairs_of(proto.type_params),
        default=getattr(proto.default_value, member) if member else None,
        default_type=_DEFAULT_TYPES[member] if member else 0,
    )


# ------------------------------------------------------------------------------------------------------------ answers


def described(collection: Collection) -> Any:
    """The DescribeCollectionResponse; the hidden dynamic field is not listed."""
    channels = [f"mishards_{collection.id}v{shard}" for shard in range(collection.shards)]
    schema = collection.schema
    return milvus_pb2.DescribeCollectionResponse(
        schema=schema_pb2.CollectionSchema(
            name=collection.name,
            description=schema.description,
            autoID=schema.primary.auto_id,
            fields=[_field(field) for field in schema.fields if not field.dynamic],
            enable_dynamic_field=schema.dynamic,
        ),
        collectionID=collection.id,
        collection_name=collection.name,
        db_name=collection.database,
        shards_num=collection.shards,
        num_partitions=len(collection.partitions),
        consistency_level=collection.consistency,
        aliases=collection.aliases,
        properties=key_values(collection.properties),
        created_timestamp=collection.created_ts,
        created_utc_timestamp=unix_ms(collection.created_ts),
        update_timestamp=collection.updated_ts,
        virtual_channel_names=channels,
        physical_channel_names=channels,
    )


def _field(field: Field) -> Any:
    proto = schema_pb2.FieldSchema(
        fieldID=field.id,
        name=field.name,
        description=field.description,
        data_type=field.type,
        is_primary_key=field.primary_key,
        autoID=field.auto_id,
        nullable=field.nullable,
        type_params=key_values(field.type_params),
    )
    if field.default is not None:
        setattr(proto.default_value, _DEFAULT_MEMBERS[field.type], field.default)
    return proto
