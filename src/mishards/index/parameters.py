"""Index parameters as clients send them (strings or numbers), checked as Milvus checks them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mishards.errors import invalid

INT_MAX = 2**31 - 1


def integer(params: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """The parameter as an int in [low, high], or the default when it is missing. PARAMETER_INVALID."""
    found = optional_integer(params, name, low, high)
    return default if found is None else found


def optional_integer(params: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """The parameter as an int in [low, high], or None when it is missing. PARAMETER_INVALID."""
    value = params.get(name)
    if value is None:
        return None
    number = _as_integer(value)
    if number is None:
        raise invalid(f"Type conflict in json: param '{name}' ({value}) should be integer")
    if not low <= number <= high:
        raise invalid(f"Out of range in json: param '{name}' ({number}) should be in range [{low}, {high}]")
    return number


def number_from(params: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """The parameter as a float in [low, high], or the default when it is missing. PARAMETER_INVALID."""
    value = params.get(name)
    if value is None:
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise invalid(f"Type conflict in json: param '{name}' ({value}) should be float")
    if not low <= number <= high:
        raise invalid(f"Out of range in json: param '{name}' ({number:g}) should be in range [{low:g}, {high:g}]")
    return number


def flag(params: Mapping[str, Any], name: str, default: bool) -> bool:
    """The parameter as a bool, or the default when it is missing. PARAMETER_INVALID."""
    value = params.get(name)
    if value is None:
        return default
    known = {"true": True, "false": False}.get(str(value).lower())
    if known is None:
        raise invalid(f"Type conflict in json: param '{name}' ({value}) should be boolean")
    return known


def one_of(params: Mapping[str, Any], name: str, default: str, known: Sequence[str]) -> str:
    """The parameter in capitals, one of those known, or the default when it is missing. PARAMETER_INVALID."""
    value = str(params.get(name, default)).upper()
    if value not in known:
        raise invalid(f"invalid param '{name}' ({params[name]}), expected one of: {', '.join(known)}")
    return value


def check_at_least_k(name: str, value: int, k: int) -> int:
    """PARAMETER_INVALID, in Milvus' words, when a breadth of search is smaller than the hits asked for."""
    if value < k:
        raise invalid(f"{name}({value}) should be larger than k({k})")
    return value


def _as_integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None
