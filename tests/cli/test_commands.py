"""The command line: what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mishards
from mishards.cli.main import app

runner = CliRunner()


def test_version_is_printed() -> None:
    """`mishards version` is one line."""
    result = runner.invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"mishards {mishards.__version__}\n")


def test_config_show_says_where_values_come_from(tmp_path: Path) -> None:
    """`mishards config show --json` has every setting with value and origin; flags and environment are named."""
    file = tmp_path / "my.toml"
    file.write_text('[writer]\nseal_bytes = "1MiB"\n')
    result = runner.invoke(
        app,
        ["config", "show", "--json", "--config", str(file), "--data", "/d"],
        env={"MISHARDS_METADATA": "mysql://u:secret@db/x"},
    )
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)}

    assert result.exit_code == 0
    assert rows["writer.seal_bytes"] == (1 << 20, "file my.toml")
    assert rows["metadata"] == ("mysql://u:***@db/x", "environment MISHARDS_METADATA")
    assert rows["data"] == ("/d", "flag --data")
    assert rows["port"] == (19530, "default")


def test_config_show_fits_80_columns() -> None:
    """The table names every setting in at most 80 columns."""
    result = runner.invoke(app, ["config", "show"], env={"MISHARDS_STORAGE": "s3://" + "b" * 60, "COLUMNS": "80"})

    assert "builder.garbage_grace_s" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--port", "70000"], "mishards: port = 70000 (flag --port): expected a port, 0 to 65535\n"),
        (["serve", "--role", "king"], "mishards: roles = 'king' (flag --role): expected 'all' or a comma-separated"),
        (["serve", "--config", "/none.toml"], "mishards: cannot read the configuration file /none.toml"),
        (["cluster", "--host", ""], "mishards: host = '' (flag --host): expected a text that is not empty\n"),
        (["status", "--data", "/none"], "mishards: no cluster has run in /none yet; name another one with --data"),
        (["topology", "a", "--metadata", "x"], "mishards: metadata = 'x' (flag --metadata): expected a URL"),
        (["topology", "a", "--metadata", "tape://x"], "mishards: unknown metadata 'tape', expected one of: "),
    ],
)
def test_setup_error_is_one_line_and_exit_code_2(arguments: list[str], says: str) -> None:
    """What a person can put right is said in one line on stderr, without a traceback."""
    result = runner.invoke(app, arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(says)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["serve", "--frob"], ["cluster", "--readers", "0"], ["dance"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Unknown flags, commands and values out of range end with exit code 2."""
    assert runner.invoke(app, arguments).exit_code == 2
