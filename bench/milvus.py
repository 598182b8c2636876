"""Milvus 2.3.5 standalone, as its package on PyPI has it: the server, with etcd and its message queue embedded.

The package lies in `bench/.milvus`, apart from every Python environment; nothing of it runs in Python. Its own settings
are kept but for paths, ports, and how long the session of a killed server lasts.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import sys
from pathlib import Path

from bench.processes import free_ports

VERSION = "2.3.5"
HOME = Path(__file__).parent / ".milvus"
PROGRAMS = HOME / "bin"
SESSION_S = 10  # instead of 30: after it a killed server can start again


def fetch() -> None:
    """Install the package with pip, once, and unpack its programs."""
    if (PROGRAMS / "milvus").exists():
        return
    target = HOME / "package"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), "--upgrade"]
    subprocess.run([*pip, f"milvus=={VERSION}"], check=True)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    packed = sorted((target / "milvus" / "data" / "bin").glob("*.lzma"), key=lambda path: path.stem == "milvus")
    for file in packed:  # the server last: it says that all are there
        unpacked = PROGRAMS / file.stem
        unpacked.write_bytes(lzma.decompress(file.read_bytes()))
        unpacked.chmod(0o755)


def configure(folder: Path) -> int:
    """Write `configs/milvus.yaml` below the folder; the port of the server."""
    template = (HOME / "package" / "milvus" / "data" / "config.yaml.template").read_text()
    for name in ("configs", "logs", "data", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = sorted(set(re.findall(r"{{ (\w+_port)\(int\)", template)))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "configs" / "milvus.yaml").write_text(configured(template, folder, ports))
    (folder / "configs" / "etcd.yaml").write_text(_etcd(*free_ports(2)))
    glog = HOME / "package" / "milvus" / "data" / "glog.conf"
    (folder / "configs" / "glog.conf").write_bytes(glog.read_bytes())
    return int(ports["proxy_port"])


def configured(template: str, folder: Path, ports: dict[str, int]) -> str:
    """The template with its placeholders, `{{ name(type): default }}`, filled in, and addresses on this machine."""
    values = {name: str(port) for name, port in ports.items()} | {
        "etcd_log_path": str(folder / "logs" / "etcd.log"),
        "etcd_data_dir": str(folder / "data" / "etcd.data"),
        "local_storage_dir": str(folder / "data"),
        "rocksmq_data_dir": str(folder / "data" / "rocksmq"),
        "system_log_path": str(folder / "logs"),
    }
    filled = re.sub(
        r"{{ (\w+)(?:\(\w+\))?(?:: ([^}]*?))? }}", lambda found: values.get(found[1], found[2] or ""), template
    )
    filled = re.sub(
        r"^    ttl: \d+ # ttl value when session", f"    ttl: {SESSION_S} # session", filled, flags=re.MULTILINE
    )
    filled = re.sub(r"^  ip: #", "  ip: 127.0.0.1 #", filled, flags=re.MULTILINE)
    return filled.replace("\netcd:\n", f"\netcd:\n  config:\n    path: {folder / 'configs' / 'etcd.yaml'}\n", 1)


def _etcd(client_port: int, peer_port: int) -> str:
    """Settings of the embedded etcd, which else takes the ports 2379 and 2380."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return (
        f"name: default\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n"
    )


def environment(folder: Path) -> dict[str, str]:
    """What the server needs to find its libraries and folders."""
    return {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(free_ports(1)[0]),
        "MILVUS_RUN_DIR": str(folder / "run"),
        "LD_LIBRARY_PATH": str(PROGRAMS),
    }
