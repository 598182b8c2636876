"""The command line: what goes wrong at the start is one line and exit code 2; what is asked comes as text or JSON."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from making import make_collection
from pymilvus import MilvusClient
from servers import Server, free_port, run_mishards

pytestmark = pytest.mark.process


def _serve(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_mishards("serve", "--data", str(data), "--port", str(free_port()), "--http-port", "0", *arguments)


def _refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit code 2 and one line on stderr that says all of it."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for text in said:
        assert text in lines[0]


def test_unknown_setting(tmp_path: Path) -> None:
    """An unknown key in the configuration file is refused, with the nearest known one."""
    (tmp_path / "mishards.toml").write_text("[writer]\nlease_secs = 3\n")

    _refused(_serve(tmp_path / "data", "--config", str(tmp_path / "mishards.toml")), "lease_secs", "lease_s")


def test_bad_value(tmp_path: Path) -> None:
    """A value of the wrong kind is refused, with what is expected."""
    (tmp_path / "mishards.toml").write_text('[writer]\nlease_s = "soon"\n')

    _refused(_serve(tmp_path / "data", "--config", str(tmp_path / "mishards.toml")), "writer.lease_s", "soon")


def test_missing_config_file(tmp_path: Path) -> None:
    """A configuration file that is not there is refused by name."""
    _refused(_serve(tmp_path / "data", "--config", str(tmp_path / "absent.toml")), "absent.toml")


@pytest.mark.parametrize("flag", ["--metadata", "--storage", "--discovery"])
def test_bad_url(tmp_path: Path, flag: str) -> None:
    """A URL whose scheme nobody knows is refused, with the known ones."""
    _refused(_serve(tmp_path / "data", flag, "carrier-pigeon://loft"), "carrier-pigeon")


def test_bad_role(tmp_path: Path) -> None:
    """An unknown role is refused, with the known ones."""
    _refused(_serve(tmp_path / "data", "--role", "reader,dancer"), "dancer", "reader")


def test_port_in_use(tmp_path: Path) -> None:
    """A port that another program listens on is refused by number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _refused(_serve(tmp_path / "data", "--port", str(port)), str(port))


def test_data_dir_of_another_server(launch: Callable[..., Server]) -> None:
    """A data directory that a running server owns is refused, naming the owner; the owner goes on."""
    server = launch("serve")
    assert server.process is not None

    _refused(_serve(server.data), str(server.data), str(server.process.pid))
    assert server.client().list_collections() == []


def test_newer_data(tmp_path: Path) -> None:
    """Data of a format newer than the program is refused, naming both."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "FORMAT").write_text("99\n")

    _refused(_serve(data), "99", "newer")


def test_unwritable_data(tmp_path: Path) -> None:
    """A data directory that cannot be made is refused by name."""
    (tmp_path / "file").write_text("")

    _refused(_serve(tmp_path / "file" / "data"), "file/data")


def test_status(server: Server) -> None:
    """`status` lists every process with its roles, as a table and as JSON."""
    done = run_mishards("status", "--data", str(server.data))
    assert done.returncode == 0, done.stderr

    for role in ("proxy", "reader", "writer", "builder"):
        assert role in done.stdout or "all" in done.stdout
        assert server.members(role), role
    if server.folder.name.startswith("cluster"):
        counts = {role: len(server.members(role)) for role in ("proxy", "reader", "writer", "builder")}
        assert counts == {"proxy": 2, "reader": 3, "writer": 1, "builder": 1}


def test_topology(server: Server, client: MilvusClient, name: str) -> None:
    """`topology` shows which reader holds which segment, as a table and as JSON."""
    make_collection(client, name, dim=4)
    client.insert(name, [{"id": i, "vector": [1.0, 2.0, 3.0, 4.0]} for i in range(100)])
    client.flush(name)

    table = run_mishards("topology", name, "--data", str(server.data))
    document = run_mishards("topology", name, "--json", "--data", str(server.data))

    assert table.returncode == 0, table.stderr
    assert document.returncode == 0, document.stderr
    readers = {member["id"] for member in server.members("reader")}
    assert any(reader in table.stdout for reader in readers)
    assert json.loads(document.stdout)


def test_topology_of_nothing(server: Server) -> None:
    """`topology` of a collection that does not exist is one line that names it."""
    done = run_mishards("topology", "nowhere", "--data", str(server.data))

    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_show(tmp_path: Path) -> None:
    """`config show` prints each setting, its value, and where it came from."""
    (tmp_path / "mishards.toml").write_text("[writer]\nlease_s = 3\n")

    done = run_mishards("config", "show", "--config", str(tmp_path / "mishards.toml"))

    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "writer.lease_s" in line)
    assert "3" in line
    assert "mishards.toml" in line
    line = next(line for line in done.stdout.splitlines() if "reader.threads" in line)
    assert "default" in line


def test_help_and_version() -> None:
    """`--help` names the commands, `--version` the version."""
    helped = run_mishards("--help")
    assert helped.returncode == 0
    for command in ("serve", "cluster", "status", "topology", "config", "demo"):
        assert command in helped.stdout

    version = run_mishards("--version")
    assert version.returncode == 0
    assert version.stdout.strip()
