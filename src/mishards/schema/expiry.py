"""Rows that expire: the collection property `collection.ttl.seconds`.

A row's age counts from its commit's hybrid timestamp. A proxy fixes once for a search, to the second, up to which
timestamp rows are expired, and every part leaves those out, so that all replicas agree. What is expired stays so while
time goes on: a rewrite that drops it a margin later changes no answer (P5, I12).
"""

from __future__ import annotations

from collections.abc import Mapping

from mishards.clock import hybrid
from mishards.errors import invalid

TTL_PROPERTY = "collection.ttl.seconds"
TTL_S_MAX = 3_155_760_000  # a hundred years, Milvus' limit
DROP_MARGIN_S = 3600  # rows are dropped that much later than searches stop to see them: clocks differ


def check_ttl(properties: Mapping[str, str]) -> None:
    """PARAMETER_INVALID unless the property is missing or a whole number of seconds in Milvus' range."""
    text = properties.get(TTL_PROPERTY, "-1").strip()
    try:
        seconds = int(text)
    except ValueError:
        raise invalid(f"invalid {TTL_PROPERTY}: {text!r} is not a whole number of seconds") from None
    if not -1 <= seconds <= TTL_S_MAX:
        raise invalid(f"collection TTL is out of range, expect [-1, {TTL_S_MAX}], got {seconds}")


def ttl_s(properties: Mapping[str, str]) -> int:
    """After how many seconds rows expire; 0: never, as for the values -1 and 0."""
    text = properties.get(TTL_PROPERTY)
    return max(0, int(text)) if text else 0


def expired_ts(properties: Mapping[str, str], now_ms: int, margin_s: int = 0) -> int:
    """The hybrid timestamp up to which rows are expired now, or since `margin_s`; 0: none is."""
    seconds = ttl_s(properties)
    return hybrid(max(0, now_ms // 1000 - seconds - margin_s) * 1000) if seconds else 0
