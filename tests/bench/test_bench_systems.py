"""The systems under test and the load on them, without any server."""

from pathlib import Path

import numpy as np
import pytest

from bench import load, milvus, processes, systems
from bench.load import Outcome, Part, SearchJob
from bench.settings import POINTS

TEMPLATE = """
etcd:
  endpoints: localhost:{{ etcd_port(int): 2379 }}
  data:
    dir: {{ etcd_data_dir }}
proxy:
  ip: # if not specify address, will use the first unicastable address as local ip
  port: {{ proxy_port(int): 19530 }}
common:
  session:
    ttl: 30 # ttl value when session granting a lease to register service
log:
  level: {{ log_level: info }}
"""


def test_milvus_gets_ports_and_folders(tmp_path: Path) -> None:
    """Every placeholder of its template is filled in, with its default where we have no wish."""
    text = milvus.configured(TEMPLATE, tmp_path, {"etcd_port": 1, "proxy_port": 2})

    assert "{{" not in text
    for line in ("endpoints: localhost:1", "port: 2", "ip: 127.0.0.1", "level: info", "ttl: 10"):
        assert f"  {line}" in text
    assert f"dir: {tmp_path}/data/etcd.data" in text
    assert f"path: {tmp_path}/configs/etcd.yaml" in text


@pytest.mark.parametrize(("name", "word"), [("standalone", "serve"), ("cluster", "cluster")])
def test_mishards_has_default_settings(name: str, word: str, tmp_path: Path) -> None:
    """Settings in the environment of the one who measures do not reach the server."""
    program = systems.make(name, tmp_path, environment={"MISHARDS_READER_THREADS": "7", "HOME": "/"}).program

    assert word in program.command
    assert program.environment == {"HOME": "/"}


def test_a_program_that_died_is_told(tmp_path: Path) -> None:
    """What a server said last is in the error, and stopping it again does no harm."""
    program = processes.Program(["sh", "-c", "echo no memory; exit 3"], tmp_path / "log", tmp_path, {})
    program.start()
    assert program._process is not None
    program._process.wait()

    with pytest.raises(RuntimeError, match="no memory"):
        program.check()

    program.stop()
    assert program.pids() == []


def test_memory_and_time_of_a_program_are_seen(tmp_path: Path) -> None:
    """A living program with a child has two processes and takes memory."""
    program = processes.Program(["sh", "-c", "sleep 60; true"], tmp_path / "log", tmp_path, {"PATH": "/usr/bin:/bin"})
    program.start()
    try:
        with processes.peak_memory(program) as peak:
            pass
        assert peak[0] > 0
        assert program.cpu_s() >= 0
        program.check()
    finally:
        program.stop()


def test_outcomes_add_up() -> None:
    """Workers' requests count together over the time of the longest; errors are counted, not averaged away."""
    one = Part(10.0, 12.0, np.full(100, 0.010), [], [], 0.5, 120)
    two = Part(10.0, 11.0, np.full(100, 0.030), [], ["refused"], 0.5, 101)

    speed = Outcome((one, two)).speed(nq=10)

    assert speed["qps"] == 200 * 10 / 2.0
    assert speed["p50_ms"] == pytest.approx(20.0)
    assert (speed["errors"], speed["client_cpu_ms"]) == (1.0, 5.0)


@pytest.mark.process
def test_a_worker_reports_what_stops_it(tmp_path: Path) -> None:
    """An error in a worker process is raised where the load was asked for."""
    job = SearchJob("http://127.0.0.1:1", ("bench",), tmp_path / "missing.npy", POINTS[0], 0.0, 0.1)

    with load.pool(1) as workers, pytest.raises(RuntimeError, match=r"worker 0: FileNotFoundError: .*missing\.npy"):
        workers.search(job)
