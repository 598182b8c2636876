"""JSON fields and dynamic keys: paths, kinds of values, existence, arrays."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mishards.filter import compile_filter
from mishards.filter.documents import ROWS_PER_DECODE
from mishards.model import DataType, Field, FieldId, Schema

SCHEMA = Schema(
    fields=(
        Field(id=FieldId(100), name="id", type=DataType.INT64, primary_key=True),
        Field(id=FieldId(101), name="doc", type=DataType.JSON, nullable=True),
        Field(id=FieldId(102), name="$meta", type=DataType.JSON, dynamic=True),
    ),
    dynamic=True,
)
DOCUMENTS = [
    b'{"n": 1, "s": "abc", "b": true, "deep": {"list": [10, {"x": 5}]}, "tags": [1, "a", true]}',
    b'{"n": 2.5, "s": null, "b": 1, "deep": {"list": []}, "tags": [2, [1, 2]]}',
    b'{ "n": "1",\n "tags": "a" }',
    b"[7, 8]",
    None,
]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("doc['n'] == 1", [0]),
        ("doc['n'] == 1.0", [0]),
        ("doc['n'] == '1'", [2]),
        ("doc['n'] != 1", [1]),
        ("not (doc['n'] == 1)", [1]),
        ("doc['n'] > 0", [0, 1]),
        ("2 > doc['n']", [0]),
        ("0 < doc['n'] <= 2.5", [0, 1]),
        ("doc['b'] == true", [0]),
        ("doc['b'] == 1", [1]),
        ("doc['n'] in [1, '1']", [0, 2]),
        ("doc['n'] in [1, 3]", [0]),
        ("doc['n'] not in [1, 3]", [1]),
        ("doc['n'] not in [1, '3']", []),
        ("doc['s'] like 'a%'", [0]),
        ("not (doc['s'] like 'b%')", [0]),
        ("doc['deep']['list'][1]['x'] == 5", [0]),
        ("doc['deep']['list'][0] / 3 == 3", [0]),
        ("doc['n'] * 2 + 1 == 6", [1]),
        ("-doc['n'] < 0", [0, 1]),
        ("doc[1] == 8", [3]),
        ("doc['s'] is null", [1, 2, 3, 4]),
        ("doc['s'] is not null", [0]),
        ("exists doc['s']", [0]),
        ("exists doc['deep']['list']", [0, 1]),
        ("not exists doc['n']", [3, 4]),
        ("doc is null", [4]),
        ("doc is not null", [0, 1, 2, 3]),
        ("doc == 1", []),
        ("json_contains(doc['tags'], 1)", [0]),
        ("json_contains(doc['tags'], true)", [0]),
        ("JSON_CONTAINS(doc['tags'], [1, 2])", [1]),
        ("not json_contains(doc['tags'], 'a')", [1]),
        ("json_contains_all(doc['tags'], ['a', 1])", [0]),
        ("json_contains_any(doc['tags'], [2, 'a'])", [0, 1]),
        ("array_contains(doc, 8)", [3]),
        ("array_length(doc['tags']) == 3", [0]),
        ("array_length(doc['deep']['list']) < 2", [1]),
    ],
)
def test_documents(text: str, rows: list[int]) -> None:
    """A path reads one value; a missing one, null, or one of another kind than the constant is unknown."""
    table = pa.table({"101": pa.array(DOCUMENTS, pa.binary())})

    assert compile_filter(text, SCHEMA).mask(table).nonzero()[0].tolist() == rows


def test_dynamic_keys() -> None:
    """A name that no field has is a key of the dynamic field; a field's own name goes to the field."""
    table = pa.table(
        {
            "100": pa.array([1, 2]),
            "102": pa.array([b'{"colour": "red", "id": 9, "\\u00e9 x": 1}', b'{"colour": "blue"}'], pa.binary()),
        }
    )

    def rows(text: str) -> list[int]:
        return compile_filter(text, SCHEMA).mask(table).nonzero()[0].tolist()

    assert rows("colour == 'red'") == rows("$meta['colour'] == 'red'") == [0]
    assert rows("colour in ['red', 'blue'] and id == 2") == [1]
    assert rows("$meta['id'] == 9") == [0]
    assert rows("id == 9") == []
    assert rows("$meta['é x'] == 1") == [0]
    assert rows("exists colour and missing is null") == [0, 1]


def test_many_rows() -> None:
    """Documents are decoded in blocks, in order, whatever the table's chunks."""
    rows = 2 * ROWS_PER_DECODE + 10
    column = pa.array([b'{"n": %d}' % row for row in range(rows)], pa.binary())
    chunked = pa.chunked_array([column.slice(0, 5), column.slice(5)])

    for array in (column, chunked):
        mask = compile_filter("doc['n'] % 5000 == 3", SCHEMA).mask(pa.table({"101": array}))

        assert mask.nonzero()[0].tolist() == [3, 5003, 10003, 15003]


def test_an_empty_table() -> None:
    """No rows make an empty mask."""
    table = pa.table({"101": pa.array([], pa.binary())})

    assert compile_filter("doc['n'] == 1 and exists doc['s']", SCHEMA).mask(table).tolist() == []
