"""`mishards cluster`: the command of each node and the shared port."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mishards.cli.cluster import command, hold_port, run
from mishards.config import Settings
from mishards.errors import SetupError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A program that listens on a port that it would share."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def flags(role: str, number: int, **same: str) -> dict[str, str]:
    given = {f"--{name}": value for name, value in same.items()}
    words = command(Settings(data="/d", http_port=9091), role, number, 19530, given)[4:]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_each_node_has_its_role_and_name() -> None:
    """A node is `mishards serve` with one role, a stable id, the shared data directory and the shared port."""
    assert flags("reader", 2) == {
        "--role": "reader",
        "--node-id": "reader-2",
        "--data": "/d",
        "--host": "127.0.0.1",
        "--port": "19530",
        "--http-port": "0",
    }


def test_all_nodes_are_given_the_flags_of_the_whole() -> None:
    """Where metadata and storage are is said once, to the cluster."""
    told = flags("writer", 1, metadata="mysql://db/mishards", storage="s3://bucket")

    assert (told["--metadata"], told["--storage"]) == ("mysql://db/mishards", "s3://bucket")


def test_only_the_first_proxy_has_the_known_http_port() -> None:
    """All others take any free port for health."""
    assert flags("proxy", 1)["--http-port"] == "9091"
    assert flags("proxy", 2)["--http-port"] == "0"
    assert flags("writer", 1)["--http-port"] == "0"


def test_held_port_can_be_listened_on_by_several() -> None:
    """The proxies share the held port; without a wish it is a free one."""
    with hold_port("127.0.0.1", 0) as port:
        proxies = [socket.socket(), socket.socket()]
        for proxy in proxies:
            proxy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            proxy.bind(("127.0.0.1", port))
            proxy.listen()
        for proxy in proxies:
            proxy.close()

    assert port > 0


def test_port_of_another_program_is_refused(listener: socket.socket) -> None:
    """A port on which somebody listens is refused, even if it would be shared."""
    port = listener.getsockname()[1]

    with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        hold_port("127.0.0.1", port).__enter__()


def test_unknown_host_is_refused() -> None:
    """An address that is not this machine's is refused by name."""
    with pytest.raises(SetupError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        hold_port("192.0.2.1", 0).__enter__()


def test_fixed_wire_port_is_refused(tmp_path: Path) -> None:
    """Nodes on one machine cannot share a wire port, so a fixed one is refused before any starts."""
    with pytest.raises(SetupError, match="wire_port = 7 cannot be had by every node of a cluster"):
        run(Settings(data=str(tmp_path / "data"), wire_port=7), {"proxy": 1}, {})

    assert not (tmp_path / "data").exists()
