"""`collection.ttl.seconds`: what it may be, and up to which timestamp rows are expired."""

from __future__ import annotations

import pytest

from mishards.clock import hybrid
from mishards.errors import Kind, MishardsError
from mishards.schema.expiry import TTL_PROPERTY, TTL_S_MAX, check_ttl, expired_ts


@pytest.mark.parametrize("value", ["-1", "0", "1", " 86400 ", str(TTL_S_MAX)])
def test_values_in_range(value: str) -> None:
    """Whole numbers of seconds up to a hundred years; -1 and 0 switch expiry off."""
    check_ttl({TTL_PROPERTY: value})
    check_ttl({})


@pytest.mark.parametrize("value", ["-2", str(TTL_S_MAX + 1), "1.5", "soon", ""])
def test_other_values(value: str) -> None:
    """Anything else is refused with its value."""
    with pytest.raises(MishardsError) as raised:
        check_ttl({TTL_PROPERTY: value})
    assert raised.value.kind is Kind.PARAMETER_INVALID
    assert value in raised.value.message


@pytest.mark.parametrize("properties", [{}, {TTL_PROPERTY: "0"}, {TTL_PROPERTY: "-1"}])
def test_rows_that_never_expire(properties: dict[str, str]) -> None:
    """Without a time to live nothing is expired."""
    assert expired_ts(properties, 10**12) == 0


def test_the_cutoff() -> None:
    """Rows of a commit at least so many seconds ago are expired, by whole seconds; a margin makes them older."""
    now_ms = 1_000_000_999

    cutoff = expired_ts({TTL_PROPERTY: "60"}, now_ms)

    assert cutoff == hybrid(999_940_000)
    assert expired_ts({TTL_PROPERTY: "60"}, now_ms, margin_s=10) == hybrid(999_930_000)
    assert expired_ts({TTL_PROPERTY: str(TTL_S_MAX)}, now_ms) == 0
