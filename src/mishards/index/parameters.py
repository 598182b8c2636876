"""Index parameters as clients send them (strings or numbers), checked as Milvus checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mishards.errors import invalid

INT_MAX = 2**31 - 1


def integer(params: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """The parameter as an int in [low, high], or the default when it is missing. PARAMETER_INVALID."""
    value = params.get(name)
    if value is None:
        return default
    number = _as_integer(value)
    if number is None:
        raise invalid(f"Type conflict in json: param '{name}' ({value}) should be integer")
    if not low <= number <= high:
        raise invalid(f"Out of range in json: param '{name}' ({number}) should be in range [{low}, {high}]")
    return number


def _as_integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None
