"""Filters are compiled before any hop, heavy ones off the loop, up to a limit (P15, P18)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mishards.errors import Kind
from mishards.model import DataType, Field, FieldId, Schema
from mishards.proxy.filters import CHARS_MAX, INLINE_WEIGHT, compiled
from mishards.testing.metadata_records import refused

SCHEMA = Schema(fields=(Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),))
LONG = "id == 1" + " or id == 1" * INLINE_WEIGHT
MANY: Mapping[str, Any] = {"ids": list(range(INLINE_WEIGHT + 1))}


@pytest.mark.parametrize(
    ("text", "template", "inline"),
    [("id == 1", {}, True), ("id in {ids}", {"ids": [1, 2]}, True), (LONG, {}, False), ("id in {ids}", MANY, False)],
)
async def test_a_heavy_filter_is_compiled_off_the_loop(text: str, template: Mapping[str, Any], inline: bool) -> None:
    """Long in itself or by its template's values; a light one is not worth a thread."""
    others_ran: list[bool] = []
    asyncio.get_running_loop().call_soon(others_ran.append, True)

    await compiled(text, SCHEMA, template)

    assert bool(others_ran) is not inline


async def test_a_filter_has_a_limit() -> None:
    """Lists belong into a template."""
    await refused(Kind.PARAMETER_TOO_LARGE, compiled("i" * (CHARS_MAX + 1), SCHEMA, {}))


async def test_a_bad_filter_is_refused_wherever_it_is_compiled() -> None:
    """With the same kind."""
    await refused(Kind.PARAMETER_INVALID, compiled("id ==", SCHEMA, {}))
    await refused(Kind.PARAMETER_INVALID, compiled(LONG + " or", SCHEMA, {}))
