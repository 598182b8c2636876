"""What may be declared as a schema, and in which words it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.errors import Kind, MishardsError
from mishards.model import DataType
from mishards.schema.definition import FieldSpec, check_shards, define_schema
from mishards.schema.names import check_alias_name, check_collection_name, check_partition_name

KEY = FieldSpec(name="id", type=5, primary_key=True)
VECTOR = FieldSpec(name="vec", type=101, params={"dim": "8"})


def refusal(*specs: FieldSpec) -> MishardsError:
    with pytest.raises(MishardsError) as caught:
        define_schema(specs)
    return caught.value


def test_field_ids_start_at_100_and_the_hidden_dynamic_field_is_last() -> None:
    """Fields get ids from 100 in the order of declaration; `$meta` comes last, as JSON."""
    schema = define_schema([KEY, VECTOR], description="d", dynamic=True)

    assert [(field.id, field.name) for field in schema.fields] == [(100, "id"), (101, "vec"), (102, "$meta")]
    assert schema.primary.name == "id"
    assert schema.vectors[0].dim == 8
    assert schema.dynamic_field is not None
    assert schema.dynamic_field.type is DataType.JSON
    assert not define_schema([KEY, VECTOR]).dynamic


def test_type_params_are_kept_as_sent() -> None:
    """The parameters of a field come back as the client sent them."""
    text = FieldSpec(name="t", type=21, params={"max_length": "10", "mmap.enabled": "true"})

    schema = define_schema([KEY, VECTOR, text])

    assert schema.fields[2].type_params == {"max_length": "10", "mmap.enabled": "true"}
    assert schema.fields[2].max_length == 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "collection name should not be empty"),
        (
            "1-x",
            "Invalid collection name: 1-x. the first character of a collection name must be an underscore or let",
        ),
        ("a-b", "Invalid collection name: a-b. collection name can only contain numbers, letters and underscores"),
        ("é", "the first character"),
        ("a" * 256, "255"),
    ],
)
def test_bad_collection_names_are_refused_in_milvus_words(name: str, words: str) -> None:
    """A collection name is `[A-Za-z_][A-Za-z0-9_]*` of at most 255 characters."""
    with pytest.raises(MishardsError, match=words) as caught:
        check_collection_name(name)

    assert caught.value.kind is Kind.PARAMETER_INVALID


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,254}", fullmatch=True))
def test_every_good_name_is_accepted(name: str) -> None:
    """A name that follows the rule names collections, aliases, partitions and fields."""
    check_collection_name(name)
    check_alias_name(name)
    check_partition_name(name)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([VECTOR], "primary key is not specified"),
        ([KEY, FieldSpec(name="id2", type=5, primary_key=True), VECTOR], "more than one primary key"),
        ([KEY], "schema does not contain vector field"),
        ([KEY, VECTOR, VECTOR], "duplicated field name vec"),
        ([FieldSpec(name="id", type=10, primary_key=True), VECTOR], "should be Int64 or VarChar, field id is Float"),
        ([FieldSpec(name="id", type=5, primary_key=True, nullable=True), VECTOR], "primary field not support null"),
        ([KEY, VECTOR, FieldSpec(name="n", type=5, auto_id=True)], "only the primary key can be auto_id"),
        ([KEY, FieldSpec(name="v", type=101)], "dimension is not defined"),
        ([KEY, FieldSpec(name="v", type=101, params={"dim": "0"})], "invalid dimension: 0 .* 1 ~ 32768"),
        ([KEY, FieldSpec(name="v", type=101, params={"dim": "32769"})], "invalid dimension: 32769"),
        ([KEY, FieldSpec(name="v", type=101, params={"dim": "x"})], "should be a whole number"),
        ([KEY, VECTOR, FieldSpec(name="t", type=21)], r"type param\(max_length\) should be specified"),
        ([KEY, VECTOR, FieldSpec(name="t", type=21, params={"max_length": "65536"})], r"\(0, 65535\], but got 65536"),
        ([KEY, VECTOR, FieldSpec(name="d", type=5, dynamic=True)], "cannot explicitly set a field as a dynamic field"),
        ([KEY, VECTOR, FieldSpec(name="$meta", type=23)], "Invalid field name"),
        ([KEY, *(FieldSpec(name=f"v{n}", type=101, params={"dim": "2"}) for n in range(5))], "limited to 4, but got 5"),
        ([KEY, VECTOR, *(FieldSpec(name=f"f{n}", type=5) for n in range(63))], "limited to 64, but got 65"),
    ],
)
def test_broken_rules_of_fields_are_named(specs: list[FieldSpec], words: str) -> None:
    """Each rule of a schema is checked, with the field, its value and the limit."""
    with pytest.raises(MishardsError, match=words) as caught:
        define_schema(specs)

    assert caught.value.kind is Kind.PARAMETER_INVALID


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (FieldSpec(name="x", type=104), "SparseFloatVector of field x is not supported"),
        (FieldSpec(name="x", type=22), "data type Array"),
        (FieldSpec(name="x", type=99), "data type type 99"),
        (FieldSpec(name="x", type=5, partition_key=True), "partition key is not supported"),
        (FieldSpec(name="x", type=5, clustering_key=True), "clustering key is not supported"),
        (FieldSpec(name="x", type=101, nullable=True, params={"dim": "2"}), "nullable vector is not supported"),
        (FieldSpec(name="x", type=21, params={"max_length": "9", "enable_analyzer": "true"}), "full-text search"),
    ],
)
def test_what_is_not_stored_is_refused_by_name(spec: FieldSpec, words: str) -> None:
    """A type or feature that Milvus has and Mishards has not is UNSUPPORTED, never dropped."""
    error = refusal(KEY, VECTOR, spec)

    assert error.kind is Kind.UNSUPPORTED
    assert words in error.message


@pytest.mark.parametrize(
    ("type", "default", "default_type"),
    [(1, True, 1), (2, -128, 4), (4, 7, 4), (4, 7, 5), (5, 1 << 40, 5), (10, 1.5, 11), (11, 2.5, 11), (21, "é", 21)],
)
def test_defaults_of_their_field_type_are_kept(type: int, default: Any, default_type: int) -> None:
    """A default of the field's own type is part of the schema."""
    spec = FieldSpec(name="x", type=type, params={"max_length": "2"}, default=default, default_type=default_type)

    assert define_schema([KEY, VECTOR, spec]).fields[2].default == default


@pytest.mark.parametrize(
    ("type", "default", "default_type", "words"),
    [
        (4, 7.5, 10, r"type \(Int32\) of field \(x\) is not equal to the type\(DataType_Float\) of default_value"),
        (5, "a", 21, "DataType_VarChar"),
        (2, 128, 4, r"out of range: \[-128, 127\]"),
        (21, "éé", 21, r"length \(4\) of default_value of field x exceeds max length 2"),
        (10, float("nan"), 10, "not a number"),
        (23, b"{}", 23, "not support default_value"),
        (101, b"", 21, "not support default_value"),
    ],
)
def test_defaults_of_another_type_are_refused(type: int, default: Any, default_type: int, words: str) -> None:
    """A default must have the field's type and fit it."""
    params = {"max_length": "2", "dim": "2"}
    spec = FieldSpec(name="x", type=type, params=params, default=default, default_type=default_type)

    with pytest.raises(MishardsError, match=words):
        define_schema([KEY, VECTOR, spec])


def test_shards_are_1_to_16_and_1_when_not_said() -> None:
    """A collection has 1 to 16 shards; 0 means the default of one."""
    assert [check_shards(0), check_shards(16)] == [1, 16]

    with pytest.raises(MishardsError, match="limited to 16, but got 17"):
        check_shards(17)
