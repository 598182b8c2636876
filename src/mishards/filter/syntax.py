"""A filter as it was written: the tree that `parse` makes and `check` types. Nothing here knows a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mishards.errors import Kind

Constant: TypeAlias = "bool | int | float | str | tuple[Constant, ...]"


class FilterError(Exception):
    """Why a filter cannot be compiled; `compile_filter` adds the filter's text and makes it a MishardsError."""

    def __init__(self, reason: str, kind: Kind = Kind.PARAMETER_INVALID) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


def unsupported(construct: str) -> FilterError:
    """The refusal of something that Milvus' language has and ours does not."""
    return FilterError(f"{construct} is not supported", Kind.UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; a tuple is a list of constants."""

    value: Constant


@dataclass(frozen=True, slots=True)
class Items:
    """A list whose items are still to be folded to constants."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`{name}`: a constant that the template gives."""

    name: str


@dataclass(frozen=True, slots=True)
class Name:
    """A field or dynamic key, with the JSON path below it; a number in the path is kept as its digits."""

    name: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefix:
    """`+`, `-` or `not`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Operation:
    """An arithmetic operator or a comparison."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Range:
    """`low < middle <= high`, or with both operators reversed."""

    low: Node
    lower: str
    middle: Node
    upper: str
    high: Node


@dataclass(frozen=True, slots=True)
class Member:
    """`operand in values`."""

    operand: Node
    values: Node


@dataclass(frozen=True, slots=True)
class Like:
    operand: Node
    pattern: Node


@dataclass(frozen=True, slots=True)
class NullTest:
    """`is null`; of a JSON path: missing or null."""

    operand: Name


@dataclass(frozen=True, slots=True)
class Exists:
    """`exists operand`."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Logical:
    """`and` or `or` of two or more."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function, its name in lower case."""

    function: str
    arguments: tuple[Node, ...]


Node: TypeAlias = (
    Literal
    | Items
    | Placeholder
    | Name
    | Prefix
    | Operation
    | Range
    | Member
    | Like
    | NullTest
    | Exists
    | Logical
    | Call
)
