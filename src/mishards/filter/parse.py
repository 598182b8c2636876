"""Text to syntax tree, with the LALR grammar in `grammar.lark`."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import msgspec
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from mishards.filter.syntax import (
    Call,
    Exists,
    FilterError,
    Items,
    Like,
    Literal,
    Logical,
    Member,
    Name,
    Node,
    NullTest,
    Operation,
    Placeholder,
    Prefix,
    Range,
    unsupported,
)

CACHED_TEXTS_MAX = 1024
CACHED_CHARACTERS_MAX = 4096  # longer texts are mostly lists of keys, which do not come twice
INTEGER_DIGITS_MAX = 66  # 0b and 64 digits


def parse(text: str) -> Node:
    """The syntax tree of a filter that is not blank. Raises FilterError with the position of a syntax error."""
    return _parse_cached(text) if len(text) <= CACHED_CHARACTERS_MAX else _parse(text)


@lru_cache(maxsize=CACHED_TEXTS_MAX)
def _parse_cached(text: str) -> Node:
    return _parse(text)


def _parse(text: str) -> Node:
    try:
        return _parser().parse(text)  # type: ignore[return-value]  # lark does not know what a transformer makes
    except UnexpectedInput as error:
        raise FilterError(_syntax_error(error)) from None


def _syntax_error(error: UnexpectedInput) -> str:
    where = f"syntax error at line {error.line} column {error.column}"
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        return f"{where}: unexpected '{error.token}'"
    if isinstance(error, UnexpectedCharacters):
        return f"{where}: unexpected character '{error.char}'"
    return "syntax error: the expression ends too early"


@cache
def _parser() -> Lark:
    grammar = resources.files("mishards.filter").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", transformer=_Builder(), maybe_placeholders=False)


@v_args(inline=True)
class _Builder(Transformer[Token, Node]):
    """One method for each rule or alias of the grammar."""

    def start(self, node: Node) -> Node:
        return node

    def disjunction(self, *operands: Node) -> Node:
        return Logical("or", operands)

    def conjunction(self, *operands: Node) -> Node:
        return Logical("and", operands)

    def operation(self, left: Node, operator: Token, right: Node) -> Node:
        return Operation(str(operator), left, right)

    def signed_power(self, left: Node, operator: Token, sign: Token, right: Node) -> Node:
        return Operation(str(operator), left, Prefix(str(sign), right))

    def prefix(self, operator: Token, operand: Node) -> Node:
        if operator.type == "TILDE":
            raise unsupported("operator ~")
        return Prefix("not" if operator.type == "NOT" else str(operator), operand)

    def unsupported_operator(self, left: Node, operator: Token, right: Node) -> Node:
        raise unsupported(f"operator {operator}")

    def range(self, low: Node, lower: Token, middle: Node, upper: Token, high: Node) -> Node:
        return Range(low, str(lower), middle, str(upper), high)

    def member(self, operand: Node, _in: Token, values: Node) -> Node:
        return Member(operand, values)

    def not_member(self, operand: Node, _not: Token, _in: Token, values: Node) -> Node:
        return Prefix("not", Member(operand, values))

    def like(self, operand: Node, _like: Token, pattern: Node) -> Node:
        return Like(operand, pattern)

    def is_null(self, name: Name, _token: Token) -> Node:
        return NullTest(name)

    def exists(self, name: Name, _token: Token) -> Node:
        return Prefix("not", NullTest(name))

    def exists_operator(self, _exists: Token, operand: Node) -> Node:
        return Exists(operand)

    def name(self, name: Token, *keys: Token) -> Node:
        if name == "$" or any(key.type == "NAME" for key in keys):
            raise unsupported("struct field")
        return Name(str(name), tuple(_key(key) for key in keys))

    def placeholder(self, name: Token) -> Node:
        return Placeholder(str(name))

    def call(self, function: Token, *arguments: Node) -> Node:
        return Call(function.lower(), arguments)

    def named_argument(self, name: Token, _value: Node) -> Node:
        raise unsupported(f"argument {name}")

    def typed_literal(self, type_name: Token, _text: Token) -> Node:
        raise unsupported(f"literal of type {type_name}")

    def boolean(self, token: Token) -> Node:
        return Literal(token.lower() == "true")

    def integer(self, token: Token) -> Node:
        return Literal(_integer(token))

    def float(self, token: Token) -> Node:
        return Literal(float.fromhex(token) if token[:2] in ("0x", "0X") else float(token))

    def string(self, token: Token) -> Node:
        return Literal(_unescape(token[1:-1]))

    def raw_string(self, token: Token) -> Node:
        return Literal(token[2:-1])

    def plain_list(self, token: Token) -> Node:
        return Literal(_plain_list(token))

    def items(self, *items: Node) -> Node:
        return Items(items)


def _key(token: Token) -> str:
    """One step of a JSON path; a number stays as its digits, which name a key as well as a position."""
    if token.type == "INTEGER":
        return str(_integer(token))
    key = _unescape(token[1:-1]) if token.type == "STRING" else token[2:-1]
    if not key:
        raise FilterError("invalid identifier: a JSON key is empty")
    return key


def _integer(token: str) -> int:
    if len(token) > INTEGER_DIGITS_MAX:
        raise FilterError(f"integer constant has {len(token)} digits, more than 64 bits hold")
    if len(token) > 1 and token[0] == "0" and token[1].isdigit():
        return int(token, 8)  # as in C
    return int(token, 0)


def _plain_list(token: str) -> tuple[Any, ...]:
    if "'" not in token and '"' not in token:
        return tuple(msgspec.json.decode(str(token), type=list[int | float]))
    return tuple(item[1:-1] for item in _QUOTED.findall(token))


def _unescape(text: str) -> str:
    """A string's value: C escapes are replaced; an unknown one is kept, as `like` needs its `\\%` and `\\_`."""
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    if code in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[code]
    if code[0] in "xuU" and len(code) > 1:
        return _character(int(code[1:], 16))
    if code[0].isdigit():
        return chr(int(code, 8))
    return match[0]


def _character(point: int) -> str:
    if 0xD800 <= point <= 0xDFFF:
        raise FilterError(f"escape of the surrogate {point:#x} is not a character")
    return chr(point)


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_ESCAPE = re.compile(
    r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|[0-7]{1,3}|.)", re.DOTALL
)
_SIMPLE_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip
