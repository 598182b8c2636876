import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mishards.errors import Kind, MishardsError
from mishards.wire import messages as m
from mishards.wire.frames import CODECS_BY_NAME, FrameKind, FrameParser, decode_error, encode_frame, error_body


def search_part(queries: np.ndarray) -> m.SearchPart:
    return m.SearchPart(1, 7, (10, 11), 101, memoryview(queries).cast("B"), len(queries), 10, "L2", {"ef": 64})


def frames_of(stream: bytes, cuts: list[int]) -> list[tuple[int, int, bytes]]:
    parser, frames, start = FrameParser(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        frames += parser.feed(stream[start:cut])
        start = cut
    return [(frame.kind, frame.request_id, bytes(frame.body)) for frame in frames]


def test_a_message_comes_back_with_its_buffers() -> None:
    """A message survives the way through a frame, its arrays included."""
    queries = np.arange(12, dtype=np.float32).reshape(3, 4)

    (frame,) = FrameParser().feed(bytes(encode_frame(FrameKind.REQUEST, 1, 5, search_part(queries), deadline_s=1.5)))

    part = CODECS_BY_NAME["reader.search"].request.decode(frame.body)
    assert (frame.kind, frame.method, frame.request_id, frame.deadline_ms) == (FrameKind.REQUEST, 1, 5, 1500)
    assert part.files == (10, 11)
    assert np.array_equal(np.frombuffer(part.queries, np.float32).reshape(3, 4), queries)


@given(st.data())
def test_cuts_do_not_matter(data: st.DataObject) -> None:
    """However a stream is cut into chunks, the same frames come out."""
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    stream = b"".join(encode_frame(FrameKind.REPLY, 2, n, b"x" * size) for n, size in enumerate(sizes))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))

    assert frames_of(stream, cuts) == frames_of(stream, [])
    assert len(frames_of(stream, cuts)) == len(sizes)


def test_a_frame_above_the_limit_is_refused_with_both_numbers() -> None:
    """Sender and receiver each refuse a frame above the limit and name its size and the limit."""
    with pytest.raises(MishardsError, match="frame of 103 bytes exceeds the limit of 64 bytes") as sent:
        encode_frame(FrameKind.REQUEST, 1, 1, b"x" * 101, body_bytes_max=64)
    with pytest.raises(MishardsError, match="frame of 103 bytes exceeds the limit of 64 bytes") as received:
        FrameParser(64).feed(bytes(encode_frame(FrameKind.REQUEST, 1, 1, b"x" * 101)))

    assert sent.value.kind is received.value.kind is Kind.PARAMETER_TOO_LARGE


def test_garbage_is_refused() -> None:
    """Bytes of another protocol are refused at the first header."""
    with pytest.raises(MishardsError, match="not a Mishards peer"):
        FrameParser().feed(b"\x00\x00\x00\x00GET / HTTP/1.1\r\n")


def test_errors_travel_by_kind_name() -> None:
    """An error keeps kind, message and detail; a kind unknown here becomes INTERNAL."""
    (frame,) = FrameParser().feed(
        bytes(encode_frame(FrameKind.ERROR, 1, 1, error_body(MishardsError(Kind.NOT_OWNER, "not mine", "w2"))))
    )
    (newer,) = FrameParser().feed(bytes(encode_frame(FrameKind.ERROR, 1, 1, ["FROM_THE_FUTURE", "hm", ""])))

    error = decode_error(frame.body)
    assert (error.kind, error.message, error.detail) == (Kind.NOT_OWNER, "not mine", "w2")
    assert decode_error(newer.body).kind is Kind.INTERNAL
