"""Searches and queries between protobuf and the proxy's requests and results.

A parameter whose feature is not served is refused by name; hints that cannot change an answer are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.api.milvus.calls import Call
from mishards.api.milvus.stubs import common_pb2, milvus_pb2, schema_pb2
from mishards.api.milvus.translate_columns import fields_data_of, ids_of
from mishards.api.milvus.translate_json import unfolded
from mishards.api.milvus.translate_schema import consistency_of, pairs_of
from mishards.api.milvus.translate_template import template_of
from mishards.errors import Kind, MishardsError, invalid
from mishards.model import DataType, Field, Schema
from mishards.proxy.requests import QueryRequest, QueryResult, SearchRequest, SearchResult

COUNT: Final = "count(*)"
_UNLIMITED: Final = -1
_UNROUNDED: Final = -1
_DECIMALS_MAX: Final = 6  # Milvus' own
_KEPT_CHARS_MAX: Final = 2048  # of the values of search parameters that are worth remembering
_UNSET: Final = ("", "false", "none", "null", "[]")

_UNSERVED_SEARCH: Final = {
    "group_by_field": "grouping search",
    "group_by_fields": "grouping search",
    "group_size": "grouping search",
    "strict_group_size": "grouping search",
    "rank_group_scorer": "grouping search",
    "order_by_fields": "search ordered by fields",
    "iterator": "search iterator",
    "search_iter_v2": "search iterator",
    "analyzer_name": "full-text search",
}
_UNSERVED_QUERY: Final = {
    "group_by_fields": "query grouped by fields",
    "order_by_fields": "query ordered by fields",
    "query_iter_last_element_offset": "query iterator over array elements",
}
# Parameters of a search that are not an index's.
_SEARCH_WORDS: Final = frozenset(
    {
        *("topk", "limit", "offset", "round_decimal", "metric_type", "anns_field", "radius", "range_filter"),
        *("ignore_growing", "page_retain_order", "hints", "collection_id", "cluster_id", "timezone", "time_fields"),
        *(
            "json_path",
            "json_type",
            "strict_cast",
            "search_iter_batch_size",
            "search_iter_last_bound",
            "search_iter_id",
        ),
        *_UNSERVED_SEARCH,
    }
)


# ------------------------------------------------------------------------------------------------------------- search


class _Words(NamedTuple):
    """What the search parameters say."""

    limit: int
    offset: int
    field: str
    metric: str
    params: Mapping[str, Any]
    radius: float | None
    range_filter: float | None
    round_decimal: int


def search_request(request: Any, call: Call) -> SearchRequest:
    """What a Search asks. PARAMETER_INVALID, UNSUPPORTED."""
    _refuse_unserved_parts(request)
    pairs = tuple([(pair.key, pair.value) for pair in request.search_params])
    words = (_words_kept if sum([len(value) for _, value in pairs]) <= _KEPT_CHARS_MAX else _words)(pairs)
    return SearchRequest(
        **_reading(request, call), filter=request.dsl, queries=_queries(request.placeholder_group), **words._asdict()
    )


def _words(pairs: tuple[tuple[str, str], ...]) -> _Words:
    """Of a key given twice the last value counts."""
    params = unfolded(dict(pairs), "search_params.params")
    _refuse_unserved(params, _UNSERVED_SEARCH)
    limit = _whole(params, "topk", _whole(params, "limit", None))
    if limit is None:
        raise MishardsError(Kind.PARAMETER_MISSING, "topk not found in search_params")
    return _Words(
        limit=limit,
        offset=_whole(params, "offset", 0),
        field=str(params.get("anns_field", "")),
        metric=str(params.get("metric_type", "")).upper(),
        params={key: value for key, value in params.items() if key not in _SEARCH_WORDS},
        radius=_number(params, "radius"),
        range_filter=_number(params, "range_filter"),
        round_decimal=_round_decimal(params),
    )


_words_kept = lru_cache(maxsize=1024)(_words)  # clients send the same ones with every search


def search_results(request: SearchRequest, result: SearchResult) -> Any:
    """The SearchResults; `topks` alone splits the flat arrays between the queries."""
    schema = result.collection.schema
    rows = result.rows
    return milvus_pb2.SearchResults(
        results=schema_pb2.SearchResultData(
            num_queries=len(result.counts),
            top_k=request.limit,
            topks=result.counts.tolist(),
            scores=result.scores.tolist(),
            ids=ids_of(result.keys),
            fields_data=[] if rows is None else fields_data_of(_shown(schema, result.output, rows), rows),
            output_fields=result.output,
            primary_field_name=schema.primary.name,
        ),
        collection_name=result.collection.name,
        session_ts=result.ts,
    )


def _refuse_unserved_parts(request: Any) -> None:
    feature = ""
    if request.HasField("ids") or request.search_by_primary_keys:
        feature = "search by primary key"
    elif len(request.function_score.functions) or len(request.function_chains):
        feature = "rerank function"
    elif request.HasField("highlighter"):
        feature = "highlighter"
    elif request.HasField("search_aggregation"):
        feature = "search aggregation"
    elif len(request.sub_reqs):
        feature = "sub-search"
    elif request.namespace:
        feature = "namespace"
    if feature:
        raise MishardsError(Kind.UNSUPPORTED, f"{feature} is not supported")


def _round_decimal(params: Mapping[str, Any]) -> int:
    decimals: int = _whole(params, "round_decimal", _UNROUNDED)
    if not _UNROUNDED <= decimals <= _DECIMALS_MAX:
        raise invalid(f"round_decimal [{decimals}] is invalid, should be -1 or in range [0, {_DECIMALS_MAX}]")
    return decimals


def _queries(placeholder_group: bytes) -> NDArray[np.float32]:
    """(nq, dim) float32, a view of the one buffer that the vectors came in."""
    placeholders = common_pb2.PlaceholderGroup.FromString(placeholder_group).placeholders
    if len(placeholders) != 1:
        raise invalid(f"a search should have one placeholder, got {len(placeholders)}")
    (placeholder,) = placeholders
    if placeholder.type != DataType.FLOAT_VECTOR:
        raise MishardsError(
            Kind.UNSUPPORTED, f"searching with {_placeholder_name(placeholder.type)} is not supported, only FloatVector"
        )
    values = placeholder.values
    sizes = {len(value) for value in values}
    if len(sizes) > 1 or any(size % 4 or not size for size in sizes):
        raise invalid(f"the query vectors should have one size, a multiple of 4 bytes, got {sorted(sizes)} bytes")
    return np.frombuffer(b"".join(values), "<f4").reshape(len(values), -1 if values else 0)


def _placeholder_name(number: int) -> str:
    kind = common_pb2.PlaceholderType.DESCRIPTOR.values_by_number.get(number)
    return f"placeholder type {number}" if kind is None else str(kind.name)


# -------------------------------------------------------------------------------------------------------------- query


def query_request(request: Any, call: Call) -> QueryRequest:
    """What a Query asks. PARAMETER_INVALID, UNSUPPORTED."""
    if request.namespace:
        raise MishardsError(Kind.UNSUPPORTED, "namespace is not supported")
    params = pairs_of(request.query_params)
    _refuse_unserved(params, _UNSERVED_QUERY)
    limit = _whole(params, "limit", None)
    if limit == _UNLIMITED:
        limit = None
    count = _is_count(request.output_fields)
    if count and limit is not None:
        raise invalid("count entities with pagination is not allowed")
    return QueryRequest(
        **_reading(request, call),
        filter=request.expr.strip(),
        limit=limit,
        offset=_whole(params, "offset", 0),
        count=count,
    )


def query_results(result: QueryResult) -> Any:
    """The QueryResults; every column is there also when no row is."""
    schema = result.collection.schema
    if result.rows is None:
        column = schema_pb2.FieldData(type=DataType.INT64, field_name=COUNT)
        column.scalars.long_data.data.append(result.count)
        fields_data = [column]
    else:
        output = (schema.primary.name, *result.output)
        fields_data = fields_data_of(_shown(schema, output, result.rows), result.rows)
    return milvus_pb2.QueryResults(
        fields_data=fields_data,
        output_fields=(COUNT,) if result.rows is None else result.output,
        collection_name=result.collection.name,
        primary_field_name=schema.primary.name,
        session_ts=result.ts,
    )


def _is_count(output_fields: Any) -> bool:
    """Whether `count(*)` is asked. Other aggregates are refused."""
    names = [name.replace(" ", "").lower() for name in output_fields]
    if names == [COUNT]:
        return True
    aggregate = next((name for name in names if "(" in name), None)
    if aggregate is not None:
        raise MishardsError(Kind.UNSUPPORTED, f"aggregate {aggregate} among output_fields is not supported")
    return False


# --------------------------------------------------------------------------------------------------------------- both


def _reading(request: Any, call: Call) -> dict[str, Any]:
    """The arguments that searches and queries share."""
    return {
        "collection": request.collection_name,
        "database": call.database,
        "partitions": tuple(request.partition_names),
        "template": template_of(request.expr_template_values),
        "output": () if _is_count(request.output_fields) else tuple(request.output_fields),
        "consistency": None if request.use_default_consistency else consistency_of(request.consistency_level),
        "guarantee_ts": request.guarantee_timestamp,
        "timeout_s": call.timeout_s,
    }


def _shown(schema: Schema, output: tuple[str, ...], rows: pa.RecordBatch) -> list[Field]:
    """The fields of the rows that the output names; the dynamic one also stands in for its keys."""
    held = set(rows.schema.names)
    keys = any(schema.field(name) is None for name in output)
    return [
        field for field in schema.fields if field.column in held and (field.name in output or (field.dynamic and keys))
    ]


def _refuse_unserved(params: Mapping[str, Any], unserved: Mapping[str, str]) -> None:
    for key, feature in unserved.items():
        if str(params.get(key, "")).strip().lower() not in _UNSET:
            raise MishardsError(Kind.UNSUPPORTED, f"{feature} is not supported ({key}={params[key]})")


def _whole(params: Mapping[str, Any], key: str, default: Any) -> Any:
    """The whole number under that key, or the default."""
    value = params.get(key)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise invalid(f"{key} [{value}] is invalid, should be a whole number") from None


def _number(params: Mapping[str, Any], key: str) -> float | None:
    value = params.get(key)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise invalid(f"{key} [{value}] is invalid, should be a number") from None
