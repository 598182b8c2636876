"""The data directory has one owner and a format."""

import os
from pathlib import Path

import pytest

from mishards.datadir import FORMAT, check_format, claim_data_dir
from mishards.errors import SetupError


def test_directory_is_made_and_marked(tmp_path: Path) -> None:
    """Claiming makes the directory with parents and writes the format."""
    data = tmp_path / "a" / "b"
    with claim_data_dir(data, "test"):
        assert (data / "FORMAT").read_text().strip() == str(FORMAT)
        assert (data / "LOCK").read_text() == f"{os.getpid()} test\n"


def test_second_owner_is_refused(tmp_path: Path) -> None:
    """While one owner holds the directory another is told who; afterwards it may have it."""
    with (
        claim_data_dir(tmp_path, "mishards cluster"),
        pytest.raises(SetupError) as error,
        claim_data_dir(tmp_path, "other"),
    ):
        pass
    assert str(error.value) == f"data directory {tmp_path} is in use by pid {os.getpid()} (mishards cluster)"

    with claim_data_dir(tmp_path, "other"):
        pass


def test_newer_or_foreign_format_is_refused(tmp_path: Path) -> None:
    """A directory of a newer program, or with an unreadable mark, is not touched."""
    (tmp_path / "FORMAT").write_text("2\n")
    with pytest.raises(SetupError, match="data format 2 is newer than this program's 1"):
        check_format(tmp_path)
    (tmp_path / "FORMAT").write_text("hello")
    with pytest.raises(SetupError, match="holds 'hello', not a format number"):
        check_format(tmp_path)


def test_unusable_directory_is_refused(tmp_path: Path) -> None:
    """A path that cannot be a directory is an error that names it."""
    (tmp_path / "file").write_text("")

    with pytest.raises(SetupError, match=r"data directory .*file cannot be used"):
        check_format(tmp_path / "file")
