"""Compiled filters, kept: the same one comes with search after search, and typing it costs more than a short search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mishards.model import Collection
from mishards.reader.evaluate import Condition

KEPT_MAX = 256


class Conditions:
    """The newest conditions by filter and definition. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Condition] = {}

    def of(self, text: str, template: Mapping[str, Any], collection: Collection) -> Condition:
        """The condition; a filter with a template is compiled each time, as its values hardly ever repeat."""
        if template:
            return Condition.of(text, template, collection.schema)
        key = (collection.id, collection.updated_ts, text)
        known = self._known.get(key)
        if known is None:
            known = Condition.of(text, template, collection.schema)
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[key] = known
        return known
