"""A filter ready to run: compiled once per request against the collection's schema, then applied to each table.

The parse of a text is cached; typing it is cheap and depends on schema and template, so it is done each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mishards.errors import MishardsError
from mishards.filter.check import Checker
from mishards.filter.evaluate import evaluate
from mishards.filter.parse import parse
from mishards.filter.syntax import FilterError
from mishards.filter.terms import Always, And, Column, Compare, Constant, Member, Or, Predicate, Settled
from mishards.model import Schema


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter; reentrant.

    `keys`: the distinct primary keys outside which nothing can match (`pk == x`, `pk in [...]`, alone or in a
    conjunction), or None when that is not known.
    """

    text: str
    is_all: bool
    keys: list[int] | list[str] | None
    _predicate: Predicate
    _reads: dict[str, set[str]]  # columns, and of the JSON ones the first keys

    @property
    def columns(self) -> frozenset[str]:
        """The columns that a table needs, as `Field.column`."""
        return frozenset(self._reads)

    def mask(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.bool_]:
        """(rows,) bool: true where the filter is true; false where it is false or, for want of a value, unknown."""
        return evaluate(self._predicate, table, self._reads)


def compile_filter(text: str, schema: Schema, template: Mapping[str, Any] | None = None) -> Filter:
    """The filter of that text; a blank one matches every row. `template` gives the constants of `{name}`.

    Costs some 0.4 ms the first time a text is seen, 0.03 ms again, and 0.2 ms more for each thousand of listed keys;
    building the parser at the first use in a process costs some 50 ms.
    Raises MishardsError: PARAMETER_INVALID, or UNSUPPORTED for what only Milvus' language has.
    """
    if not text.strip():
        return Filter(text, True, None, Always(True), {})
    checker = Checker(schema, template or {})
    try:
        predicate = checker.check(parse(text), text)
    except FilterError as error:
        raise MishardsError(error.kind, f"cannot parse expression: {text}, error: {error.reason}") from None
    return Filter(text, False, _keys(predicate, schema.primary.column), predicate, checker.columns)


def weight(text: str, template: Mapping[str, Any]) -> int:
    """What compiling costs grows with this: the text's characters and the template's values."""
    return len(text) + sum(len(value) for value in template.values() if isinstance(value, str | list | tuple))


def _keys(predicate: Predicate, primary: str) -> list[Any] | None:
    """The primary keys outside which the predicate cannot be true, or None when they are not listed in it."""
    match predicate:
        case Always(False) | Settled(_, False):
            return []
        case Compare("==", Column(field), Constant(value)) if field.column == primary:
            return [value]
        case Member(Column(field), values) if field.column == primary:
            return list(dict.fromkeys(values.to_numpy(zero_copy_only=False).tolist()))
        case And(operands):
            known = [keys for operand in operands if (keys := _keys(operand, primary)) is not None]
            return min(known, key=len, default=None)
        case Or(operands):
            listed = [_keys(operand, primary) for operand in operands]
            if None not in listed:
                return list(dict.fromkeys(key for keys in listed if keys is not None for key in keys))
    return None
