"""How many hits and rows may be asked for."""

from __future__ import annotations

import pytest

from mishards.errors import MishardsError
from mishards.schema.limits import check_query_window, check_search_window


@pytest.mark.parametrize(
    ("nq", "limit", "offset", "words"),
    [
        (1, 20000, 0, r"topk \[20000\] is invalid, top k should be in range \[1, 16384\], but got 20000"),
        (1, 0, 0, r"topk \[0\] is invalid"),
        (16385, 1, 0, r"nq \[16385\] is invalid"),
        (1, 10, -1, r"offset \[-1\] is invalid"),
        (1, 10, 16380, r"\(offset\+limit\) should be in range \[1, 16384\], but got 16390"),
    ],
)
def test_searches_out_of_bounds_are_refused(nq: int, limit: int, offset: int, words: str) -> None:
    """A search has 1 to 16384 queries and ends within the first 16384 hits."""
    check_search_window(16384, 16384, 0)

    with pytest.raises(MishardsError, match=words):
        check_search_window(nq, limit, offset)


def test_queries_out_of_bounds_are_refused() -> None:
    """A query with a limit ends within the first 16384 rows; one without is not bounded here."""
    check_query_window(None, 0)
    check_query_window(16384, 0)

    with pytest.raises(MishardsError, match="greater than 0"):
        check_query_window(0, 0)
    with pytest.raises(MishardsError, match=r"offset\+limit"):
        check_query_window(16384, 1)
