"""Which columns `output_fields` mean."""

from __future__ import annotations

import pytest

from mishards.errors import Kind, MishardsError
from mishards.schema.definition import FieldSpec, define_schema
from mishards.schema.output import resolve_output

SPECS = [
    FieldSpec(name="id", type=5, primary_key=True),
    FieldSpec(name="vec", type=101, params={"dim": "2"}),
    FieldSpec(name="n", type=5),
]
PLAIN = define_schema(SPECS)
DYNAMIC = define_schema(SPECS, dynamic=True)


def test_a_star_means_every_field_and_the_whole_dynamic_field() -> None:
    """`*` stands for all fields; with a dynamic field its keys come along without being named."""
    assert resolve_output(PLAIN, ["*"]).names == ("id", "vec", "n")

    fields, keys, names = resolve_output(DYNAMIC, ["*", "color"])

    assert [field.name for field in fields] == ["id", "vec", "n", "$meta"]
    assert keys == ()
    assert names == ("id", "vec", "n", "$meta")


def test_unknown_names_are_keys_of_the_dynamic_field() -> None:
    """A name that is no field is a key of `$meta`, which is then read in its stead."""
    fields, keys, names = resolve_output(DYNAMIC, ["color", "n", "color"])

    assert [field.name for field in fields] == ["n", "$meta"]
    assert keys == ("color",)
    assert names == ("color", "n")


def test_the_key_is_added_where_wanted() -> None:
    """`with_key` puts the primary key first, once."""
    assert resolve_output(PLAIN, ["n"], with_key=True).names == ("id", "n")
    assert resolve_output(PLAIN, ["n", "id"], with_key=True).names == ("id", "n")
    assert resolve_output(PLAIN, []).fields == ()


def test_unknown_names_without_a_dynamic_field_are_refused() -> None:
    """Without a dynamic field an unknown name is an error; so is a path into JSON."""
    with pytest.raises(MishardsError, match="field color not exist") as caught:
        resolve_output(PLAIN, ["color"])
    assert caught.value.kind is Kind.FIELD_NOT_FOUND

    with pytest.raises(MishardsError, match="not support getting subkeys"):
        resolve_output(DYNAMIC, ['a["b"]'])
