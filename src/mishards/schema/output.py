"""Which columns a request's `output_fields` mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mishards.errors import Kind, MishardsError
from mishards.model import DYNAMIC_FIELD, Field, Schema

ALL_FIELDS = "*"


class Output(NamedTuple):
    """Columns to read, keys to pick from the dynamic field, and the names to answer with."""

    fields: tuple[Field, ...]  # in schema order; the dynamic field stands in for its keys
    dynamic_keys: tuple[str, ...]  # () when the whole dynamic field is wanted, or nothing of it
    names: tuple[str, ...]  # as asked, `*` expanded, without repeats


def resolve_output(schema: Schema, names: Iterable[str], *, with_key: bool = False) -> Output:
    """What `names` ask of rows of `schema`; `with_key` adds the primary key. FIELD_NOT_FOUND, UNSUPPORTED."""
    wanted = dict.fromkeys([schema.primary.name] if with_key else [])
    for name in names:
        wanted.update(dict.fromkeys(_expanded(schema, name)))
    everything_dynamic = DYNAMIC_FIELD in wanted
    keys = tuple(name for name in wanted if schema.field(name) is None)
    if everything_dynamic:  # its keys come along with it
        wanted = dict.fromkeys(name for name in wanted if name not in keys)
        keys = ()
    fields = tuple(field for field in schema.fields if field.name in wanted or (field.dynamic and keys))
    return Output(fields, keys, tuple(wanted))


def _expanded(schema: Schema, name: str) -> tuple[str, ...]:
    name = name.strip()
    if name == ALL_FIELDS:
        return tuple(field.name for field in schema.fields)
    if schema.field(name) is not None:
        return (name,)
    if "[" in name:
        raise MishardsError(Kind.UNSUPPORTED, f"not support getting subkeys of json field yet: {name}")
    if schema.dynamic and name:
        return (name,)
    raise MishardsError(Kind.FIELD_NOT_FOUND, f"field {name} not exist")
