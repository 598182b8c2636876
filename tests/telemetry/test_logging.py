"""Logging: one line an event, key=value, on stderr, from the level upwards."""

import re
from collections.abc import Iterator

import pytest
import structlog

from mishards.telemetry import logging


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_events_are_lines_of_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    """An event at the level is one line on stderr, one below it nothing; stdout stays clean."""
    logging.set_up("info")
    log = structlog.get_logger()
    log.debug("hidden")
    log.info("shard taken", collection="books", shard=3)

    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(r'timestamp=\S+Z level=info event="shard taken" collection=books shard=3\n', output.err), (
        output.err
    )


def test_exceptions_are_logged_with_their_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception's trace is a value of its event's one line."""
    logging.set_up("error")
    try:
        raise ValueError("odd")
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError: odd" in capsys.readouterr().err
