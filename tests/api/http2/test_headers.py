"""Header blocks: the quick way of reading them and the library's agree."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from mishards.api.http2.frames import ProtocolError
from mishards.api.http2.headers import HeaderReader, header_block

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F), max_size=200)
FIELDS = st.lists(st.tuples(st.sampled_from(["a", ":path", "te", "x-long-name" * 20, ""]), TEXT), max_size=8)


@given(st.lists(st.tuples(FIELDS, st.sampled_from(["plain", "library", "huffman"])), max_size=8))
def test_blocks_in_any_mixture_of_forms_are_read_as_the_library_reads_them(
    blocks: list[tuple[list[tuple[str, str]], str]],
) -> None:
    """Fields come back whole and by name, whether as text, by number or compressed, in every order."""
    encoder, reader, library = Encoder(), HeaderReader(), Decoder()
    for fields, form in blocks:
        block = header_block(fields) if form == "plain" else encoder.encode(fields, huffman=form == "huffman")
        assert reader.read(block) == dict(library.decode(block)) == dict(fields)


def test_numbers_are_of_the_fields_that_the_client_has_now() -> None:
    """A field that is known by a number gets another when one is added; both are read right, again and again."""
    encoder, reader = Encoder(), HeaderReader()
    for n in range(50):
        fields = [("a", "1"), ("b", str(n // 10)), ("c", "3")]
        assert reader.read(encoder.encode(fields)) == dict(fields)


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xbe", b"\xff\xff", b"\x00", b"\x00\x05ab", b"\x00\x01a\x05ab", b"\x00\x01\xff\x01a", b"\x3f\xff\xff"],
)
def test_blocks_that_cannot_be_read_end_the_connection(block: bytes) -> None:
    """Numbers of no field, texts that are cut off or no UTF-8, and tables that are too large are refused."""
    with pytest.raises(ProtocolError, match="cannot be read"):
        HeaderReader().read(block)
