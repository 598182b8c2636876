"""What the filter language's texts mean: precedence, literals, spellings, syntax errors."""

from __future__ import annotations

import pytest

from mishards.filter.parse import CACHED_CHARACTERS_MAX, parse
from mishards.filter.syntax import FilterError, Items, Literal, Logical, Name, Operation, Range


@pytest.mark.parametrize(
    ("text", "explicit"),
    [
        ("a or b and c", "a or (b and c)"),
        ("a and b or c", "(a and b) or c"),
        ("not a and b", "(not a) and b"),
        ("not a == 1", "(not a) == 1"),
        ("not a in [1]", "(not a) in [1]"),
        ("not a is null", "not (a is null)"),
        ("not exists a", "not (exists a)"),
        ("not a like 'x'", "not (a like 'x')"),
        ("!a && !b || c", "((!a) && (!b)) || c"),
        ("a == b < c", "a == (b < c)"),
        ("a == 1 != b", "(a == 1) != b"),
        ("a + b < c", "(a + b) < c"),
        ("a + b in [1]", "(a + b) in [1]"),
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a / b * c % d", "((a / b) * c) % d"),
        ("-a * b", "(-a) * b"),
        ("-a ** b", "-(a ** b)"),
        ("a ** b ** c", "(a ** b) ** c"),
        ("a ** -b * c", "(a ** (-b)) * c"),
        ("a + b == c and d", "((a + b) == c) and d"),
        ("1 < a + b <= c + d", "1 < (a + b) <= (c + d)"),
        ("a == not b", "a == (not b)"),
    ],
)
def test_precedence(text: str, explicit: str) -> None:
    """Operators bind as in Milvus: signs and `not` tighter than comparison, `and` tighter than `or`."""
    assert parse(text) == parse(explicit)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("42", 42), ("0x1F", 31), ("0XaB", 171), ("0b101", 5), ("017", 15), ("9223372036854775808", 2**63),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("2.5E-1", 0.25), ("0x1.8p3", 12.0),
        ("1e999", float("inf")),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False),
        ("'abc'", "abc"), ('"abc"', "abc"), ("''", ""), ('"it\'s"', "it's"), (r"'it\'s'", "it's"),
        (r"'\x41\u4e2d\101'", "A中A"),
        (r"'a\nb\tc\\d'", "a\nb\tc\\d"), (r"'100\%'", r"100\%"), (r"'\U0001F600'", "😀"), ("'中文'", "中文"),
        (r"r'a\nb'", r"a\nb"), (r'R"\d\""', r"\d\""), ("'and or not'", "and or not"),
        ("[1, -2, 3]", (1, -2, 3)), ("[1, 2.5, 1e3]", (1, 2.5, 1000.0)), ("['a', \"b'c\"]", ("a", "b'c")),
        ("[ 1 ]", (1,)),
    ],
)  # fmt: skip
def test_literals(text: str, value: object) -> None:
    """Literals are those of C and Python: bases, exponents, both quotes, escapes, raw strings, lists."""
    literal = parse(text)

    assert literal == Literal(value)  # type: ignore[arg-type]
    assert repr(literal) == repr(Literal(value))  # type: ignore[arg-type]  # 1 == 1.0 == True


def test_lists_of_expressions() -> None:
    """A list may hold anything that is constant in the end, and a comma after the last item."""
    assert parse("[]") == Items(())
    assert parse("[0x10, true, ]") == Items((Literal(16), Literal(True)))
    assert parse(r"['a\n']") == Items((Literal("a\n"),))


def test_spellings() -> None:
    """Words may be in lower or in upper case, and symbols stand for and, or and not."""
    assert parse("a and b") == parse("a AND b") == parse("a && b") == parse("a&&b")
    assert parse("a or b") == parse("a OR b") == parse("a || b")
    assert parse("not a") == parse("NOT a") == parse("!a") == parse("! a")
    assert parse("a in [1]") == parse("a IN [1]")
    assert parse("a not in [1]") == parse("a NOT IN [1]") == parse("not (a in [1])")
    assert parse("a is null") == parse("a IS NULL") == parse("a  is\n null")
    assert parse("a is not null") == parse("a IS NOT NULL") == parse("not (a is null)")
    assert parse("a like 'x'") == parse("a LIKE 'x'")
    assert parse("exists a") == parse("EXISTS a")


def test_names() -> None:
    """A name may begin with a keyword, hold any letters, and be followed by a JSON path."""
    assert parse("order") == Name("order")
    assert parse("notable") == Name("notable")
    assert parse("größe_1") == Name("größe_1")
    assert parse("a['b'][0][\"c\\n\"]") == Name("a", ("b", "0", "c\n"))
    assert parse("$meta['k']") == Name("$meta", ("k",))


def test_ranges_and_chains() -> None:
    """A chain of two comparisons is a range; many operands of `and` make one node."""
    assert parse("1 < a <= 5") == Range(Literal(1), "<", Name("a"), "<=", Literal(5))
    assert parse("a and b and c") == Logical("and", (Name("a"), Name("b"), Name("c")))
    assert parse("a < 1") == Operation("<", Name("a"), Literal(1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "syntax error at line 1 column 3: unexpected '='"),
        ("a ==", "syntax error: the expression ends too early"),
        ("a == 1 b", "syntax error at line 1 column 8: unexpected 'b'"),
        ("(a == 1", "syntax error: the expression ends too early"),
        ("a ==\n 1)", "syntax error at line 2 column 3: unexpected ')'"),
        ("a ? 1", "syntax error at line 1 column 3: unexpected character '?'"),
        ("a == 'x", "syntax error at line 1 column 6: unexpected character '''"),
        ("1 < a < 3 < 4", "syntax error at line 1 column 11: unexpected '<'"),
        ("a == 09", "syntax error at line 1 column 7: unexpected '9'"),
        ("a == " + "1" * 70, "integer constant has 70 digits, more than 64 bits hold"),
        (r"a == '\ud800'", "escape of the surrogate 0xd800 is not a character"),
        ("a['']", "invalid identifier: a JSON key is empty"),
    ],
)
def test_syntax_errors(text: str, message: str) -> None:
    """A syntax error says where and what."""
    with pytest.raises(FilterError) as caught:
        parse(text)

    assert caught.value.reason == message


def test_texts_are_cached_unless_long() -> None:
    """The parse of a text is kept, but not that of a long one."""
    long = f"a in {list(range(CACHED_CHARACTERS_MAX))}"

    assert parse("a == 12345") is parse("a == 12345")
    assert parse(long) is not parse(long)
