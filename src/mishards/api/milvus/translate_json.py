"""JSON documents that travel inside protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mishards.errors import invalid

_PARAMS: Final = "params"


def json_of(text: str | bytes, what: str) -> Any:
    """The value of a JSON document. PARAMETER_INVALID with `what` when it is malformed or nested too deeply."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's own and UnicodeDecodeError are ValueErrors
        raise invalid(f"{what} is not valid JSON: {error}") from None


def unfolded(pairs: Mapping[str, str], what: str) -> dict[str, Any]:
    """The parameters with those inside the JSON `params` beside them, which win: they are typed."""
    inside = json_of(pairs.get(_PARAMS) or "{}", what)
    if not isinstance(inside, dict):
        raise invalid(f"{what} should be a JSON object, got {pairs[_PARAMS]!r}")
    return {key: value for key, value in pairs.items() if key != _PARAMS} | inside
