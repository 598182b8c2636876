"""The documentation is true as far as a program can tell: settings, commands, examples, links, tables."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer

import mishards
from mishards import config
from mishards.api.milvus.calls import Workers
from mishards.api.milvus.door import milvus_calls
from mishards.cli.main import app
from mishards.clock import FakeClock
from mishards.config import Settings
from mishards.errors import Kind
from mishards.proxy.requests import ProxyService
from mishards.telemetry import catalogue
from mishards.telemetry.metrics import Metric

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BETWEEN_NODES = {"NOT_CAUGHT_UP", "GONE", "NOT_LOADED", "NOT_OWNER", "FENCED", "CONFLICT", "LEASE_HELD", "PEER_LOST"}


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _rows(page: Path) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _default(cell: str, kind: Any) -> Any:
    """The value that a cell of the table of settings shows."""
    if cell == "empty":
        return ""
    text = cell.strip("`")
    number = re.fullmatch(r"([0-9.]+)([KMG]iB)?", text)
    if kind.__origin__ is str or number is None:
        return text
    return kind.__origin__(float(number[1]) * SIZES.get(number[2], 1))


# ------------------------------------------------------------------------------------------------------------ settings


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/configuration.md lists each setting once, in the order of declaration, with its default and a meaning."""
    kinds = config.types()
    listed = [row for row in _rows(DOCS / "configuration.md") if row[0].startswith("`")]
    documented = {key: _default(row[1], kinds.get(key, str)) for row in listed if (key := row[0].strip("`"))}

    assert documented == config.values(Settings())
    assert list(documented) == list(kinds)
    assert len(listed) == len(documented)
    assert all(row[-1] for row in listed)


def test_the_example_of_a_configuration_file_loads(tmp_path: Path) -> None:
    """The TOML of docs/configuration.md is a valid configuration."""
    (example,) = _blocks(DOCS / "configuration.md", "toml")
    file = tmp_path / "mishards.toml"
    file.write_text(example)

    assert config.load(file, {}, {}).settings.writer.lease_s == 5


# ------------------------------------------------------------------------------------------------------------ commands


def _commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of each `mishards ...` in blocks of shell and in code between the lines."""
    for page in PAGES:
        lines = [line for block in _blocks(page, "sh") for line in block.splitlines()]
        spans = re.findall(
            r"`(mishards (?!ready:)[^`]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        )
        for text in [*lines, *spans]:
            words = shlex.split(text, comments=True)
            if words[:1] == ["mishards"]:
                yield _named(page), words[1:]


COMMANDS = list(_commands())


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}" for page, words in COMMANDS])
def test_commands_parse(page: str, words: list[str]) -> None:
    """Each command that a page shows exists, with these flags and arguments."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]

    assert not hasattr(command, "commands"), words
    if words:  # else it is only spoken of
        command.make_context("mishards", words)


def test_every_command_is_in_the_readme() -> None:
    """The README's table names all commands."""
    names = {name for row in _rows(ROOT / "README.md") for name in re.findall(r"^`mishards (\w+)", row[0])}

    assert names == set(cast("Any", typer.main.get_command(app)).commands)


def test_make_targets_exist() -> None:
    """Each `make ...` that a page shows is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)}

    assert {"demo", "test"} <= shown <= targets


# ------------------------------------------------------------------------------------------------------------ examples


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python in the README runs as it stands; the first server's address is put in."""
    monkeypatch.chdir(tmp_path)
    examples = _blocks(ROOT / "README.md", "python")

    with mishards.start("./server-data") as server:
        for example in examples:
            exec(compile(example.replace("http://127.0.0.1:19530", server.uri), "README.md", "exec"), {})

    assert len(examples) == 2


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_python_blocks_compile(page: Path) -> None:
    """Every block of Python in the pages is Python."""
    for block in _blocks(page, "python"):
        compile(block, _named(page), "exec")


# -------------------------------------------------------------------------------------------------- what must be named


def test_every_dependency_has_its_reason() -> None:
    """Each runtime dependency is named, as code, in a record of a decision."""
    records = "\n".join(page.read_text() for page in (DOCS / "adr").glob("[0-9]*.md"))
    names = [re.split(r"[><=\[; ]", dependency)[0] for dependency in _project()["project"]["dependencies"]]

    assert [name for name in names if f"`{name}`" not in records] == []


def test_records_are_listed() -> None:
    """The index of the decisions lists each record with its title."""
    index = (DOCS / "adr" / "README.md").read_text()

    for record in (DOCS / "adr").glob("[0-9]*.md"):
        title = record.read_text().splitlines()[0].removeprefix("# ")
        assert f"- [{title}]({record.name})" in index
        for heading in ("Context", "Decision", "Rejected", "Consequences"):
            assert f"## {heading}\n" in record.read_text(), record.name


@pytest.mark.parametrize("group", ["storage", "metadata", "discovery", "router", "index"])
def test_built_in_plug_ins_are_documented(group: str) -> None:
    """The page of each kind of plug-in names the built-in ones, the entry point, the Protocol and the suite."""
    page = (DOCS / "plugins" / f"{group}.md").read_text()

    for name in _project()["project"]["entry-points"][f"mishards.{group}"]:
        assert re.search(rf"`{name}(`|:)", page), name
    assert f'entry-points."mishards.{group}"' in page
    assert "`mishards.ports." in page
    assert f"mishards.testing.{group}_suite" in page


def test_served_calls_are_listed() -> None:
    """docs/milvus.md lists every call of Milvus' service that has a handler, and no other."""
    names = re.findall(r"^\| [a-z]+ \| (`[A-Z].*) \|$", (DOCS / "milvus.md").read_text(), re.MULTILINE)
    listed = [name for line in names for name in re.findall(r"`(\w+)`", line)]
    workers = Workers()
    served = milvus_calls(cast(ProxyService, None), workers, FakeClock(), "0")
    workers.close()

    assert sorted(listed) == sorted(served)


def test_error_codes_are_listed() -> None:
    """docs/milvus.md has every kind of error that clients see, with its code and whether a repetition can help."""
    listed = {row[0]: (row[1], row[2]) for row in _rows(DOCS / "milvus.md") if row[0] in Kind.__members__}
    shown = [kind for kind in Kind if kind.name not in BETWEEN_NODES]

    assert listed == {kind.name: (str(kind.codes.code), "yes" if kind.codes.retryable else "no") for kind in shown}


def test_every_metric_is_documented() -> None:
    """docs/monitoring.md lists each metric once, in the order of the catalogue, with its labels and a meaning."""
    listed = [row for row in _rows(DOCS / "monitoring.md") if re.fullmatch(r"`mishards_\w+`", row[0])]
    metrics = [value for value in vars(catalogue).values() if isinstance(value, Metric)]

    assert [(row[0], row[1]) for row in listed] == [
        (f"`{metric.name}`", ", ".join(f"`{label}`" for label in metric.labels)) for metric in metrics
    ]
    assert all(row[-1] for row in listed)


# -------------------------------------------------------------------------------------------------------- architecture


def test_layers_are_those_that_are_checked() -> None:
    """The folders in ARCHITECTURE are the layers that import-linter checks, in that order, and exist."""
    (block,) = _blocks(DOCS / "ARCHITECTURE.md", "layers")
    layers = _project()["tool"]["importlinter"]["contracts"][0]["layers"]

    assert block.splitlines() == layers
    for name in re.split(r"\W+", block.strip()):
        folder = ROOT / "src" / "mishards" / name
        assert folder.is_dir() or folder.with_suffix(".py").is_file(), name


def test_architecture_is_short() -> None:
    """ARCHITECTURE is read in one sitting: below 200 lines."""
    assert len((DOCS / "ARCHITECTURE.md").read_text().splitlines()) < 200


def test_rules_that_code_names_are_explained() -> None:
    """Every rule and invariant that a docstring or comment names has its line in ARCHITECTURE."""
    explained = {row[0] for row in _rows(DOCS / "ARCHITECTURE.md") if re.fullmatch(r"[PI]\d+", row[0])}
    named = {
        rule
        for folder in ("src", "tests", "tools")
        for file in (ROOT / folder).rglob("*.py")
        for rule in re.findall(r"\b[PI]\d{1,2}\b", file.read_text())
    }

    assert explained == {f"P{n}" for n in range(1, 19)} | {f"I{n}" for n in range(1, 21)}
    assert named <= explained


def test_files_that_pages_name_exist() -> None:
    """A path of the source, the tests or the tools in code between the lines is there."""
    for page in PAGES:
        for path in re.findall(r"`((?:src|tests|tools|docs)/[\w./]+)`", page.read_text()):
            assert (ROOT / path).exists(), f"{_named(page)}: {path}"
    for path in re.findall(r"`(\w[\w/]*/\w+\.py)`", (DOCS / "ARCHITECTURE.md").read_text()):
        assert (ROOT / "src" / "mishards" / path).exists() or (ROOT / path).exists(), path


# --------------------------------------------------------------------------------------------------------------- pages


def _anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file, and to a heading of it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, link


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_pages_stand_alone(page: Path) -> None:
    """No page names a path of the machine that it was written on."""
    assert re.findall(r"(?<![\w.])/(?:work|root|home|tmp|Users)/?\b", page.read_text()) == []


def test_the_changelog_has_this_version_or_what_comes_next() -> None:
    """CHANGELOG begins with what is not released yet, and its lists have the usual headings."""
    text = (ROOT / "CHANGELOG.md").read_text()

    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_claimed_speed_was_measured() -> None:
    """The ratios to Milvus in the README are those of the last results: 4 clients, standalone and cluster."""
    claimed = re.findall(r"(\d\.\d+) to (\d\.\d+) times", (ROOT / "README.md").read_text())
    results = (ROOT / "bench/results/latest.md").read_text()
    rows = re.findall(r"^\| QPS, nq=1, 4 workers \| \*\*(\S+)\*\* \| \*\*(\S+)\*\* \|", results, re.MULTILINE)

    assert rows
    for (least, most), measured in zip(claimed, zip(*rows, strict=True), strict=True):
        ratios = [float(ratio) for ratio in measured]
        assert (min(ratios), max(ratios)) == pytest.approx((float(least), float(most)), abs=0.05)


def test_claimed_share_of_searches_kept_was_measured() -> None:
    """While rows are inserted, as the README says: the standalone server's share, the cluster's and Milvus'."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    claimed = re.findall(r"(\d+) to (\d+) % of the searches are kept, where Milvus keeps (\d+)", readme)
    results = (ROOT / "bench/results/latest.md").read_text().partition("searching while inserting")[2]

    assert claimed == [tuple(re.findall(r"^\| M\S.*? \| (\d+)% \|", results, re.MULTILINE)[:3])]
