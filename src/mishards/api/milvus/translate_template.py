"""The values of a filter's `{name}` variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mishards.api.milvus.translate_json import json_of
from mishards.errors import Kind, MishardsError, invalid


def template_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Template values as Python values, by name."""
    return {name: _value(name, value) for name, value in values.items()}


def _value(name: str, value: Any) -> Any:
    kind = value.WhichOneof("val")
    if kind is None:
        raise invalid(f"the value of expression template variable {{{name}}} is not given")
    if kind == "bytes_val":
        raise MishardsError(Kind.UNSUPPORTED, f"bytes as expression template variable {{{name}}} are not supported")
    if kind == "array_val":
        return _array(name, value.array_val)
    return getattr(value, kind)


def _array(name: str, array: Any) -> list[Any]:
    kind = array.WhichOneof("data")
    if kind is None:
        return []
    items = getattr(array, kind).data
    if kind == "array_data":
        return [_array(name, item) for item in items]
    if kind == "json_data":
        return [json_of(item, f"a value of expression template variable {{{name}}}") for item in items]
    return list(items)
