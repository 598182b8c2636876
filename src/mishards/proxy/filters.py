"""Compiling a request's filter early, so that a bad one fails before any hop; a long one in a thread (P18)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mishards.errors import Kind, MishardsError
from mishards.filter import Filter, compile_filter, weight
from mishards.model import Schema

INLINE_WEIGHT = 2_000  # heavier ones are compiled in a thread: a thousand terms cost some milliseconds
CHARS_MAX = 4 << 20


async def compiled(text: str, schema: Schema, template: Mapping[str, Any]) -> Filter:
    """The filter. PARAMETER_INVALID, UNSUPPORTED; PARAMETER_TOO_LARGE above `CHARS_MAX`."""
    if len(text) > CHARS_MAX:
        raise MishardsError(
            Kind.PARAMETER_TOO_LARGE, f"the filter has {len(text)} characters, the limit is {CHARS_MAX}; use a template"
        )
    if weight(text, template) <= INLINE_WEIGHT:
        return compile_filter(text, schema, template)
    return await asyncio.to_thread(compile_filter, text, schema, template)
