"""Snapshots, time travel and backups as users have them: pymilvus unchanged, and the command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from making import make_collection
from pymilvus import MilvusClient, MilvusException
from servers import Server, run_mishards

pytestmark = pytest.mark.process

ROWS = 300


@pytest.fixture
def history(client: MilvusClient, name: str) -> Iterator[str]:
    """A collection with a snapshot `then` of 300 rows, half of which are replaced or deleted afterwards."""
    make_collection(client, name, dim=4, fields={"number": {"datatype": 5}})
    client.insert(name, [_row(key, 1) for key in range(ROWS)])
    client.flush(name)
    client.upsert(name, [_row(0, 1)])
    client.create_snapshot(snapshot_name="then", collection_name=name, description="as it was")
    client.upsert(name, [_row(key, 2) for key in range(0, ROWS, 3)])
    client.delete(name, filter="id % 3 == 1")
    client.flush(name)
    yield name
    for made in client.list_collections():
        if made.startswith(f"{name}_"):
            client.drop_collection(made)


def _row(key: int, number: int) -> dict[str, Any]:
    return {"id": key, "number": number, "vector": [float(key), float(number), 0.0, 0.0]}


def _numbers(client: MilvusClient, name: str) -> dict[int, int]:
    rows = client.query(name, filter="id >= 0", output_fields=["number"], limit=1000, consistency_level="Strong")
    return {row["id"]: row["number"] for row in rows}


def test_time_travel(client: MilvusClient, history: str) -> None:
    """`collection@snapshot` is read as it was by search, query, get, count and iterators; what is now as ever."""
    then = f"{history}@then"

    assert _numbers(client, then) == dict.fromkeys(range(ROWS), 1)
    assert _numbers(client, history) == {key: 1 + (key % 3 == 0) for key in range(ROWS) if key % 3 != 1}
    (hits,) = client.search(then, [[1.0, 1.0, 0.0, 0.0]], limit=2, output_fields=["number"])
    assert (hits[0]["id"], hits[0]["distance"]) == (1, 0.0)
    assert client.get(then, ids=[4], output_fields=["number"])[0]["number"] == 1
    assert client.query(then, output_fields=["count(*)"])[0]["count(*)"] == ROWS
    pages = client.query_iterator(then, batch_size=100, filter="id >= 0", output_fields=["id"])
    found: list[int] = []
    while page := pages.next():
        found += [row["id"] for row in page]
    pages.close()
    assert found == list(range(ROWS))
    assert client.has_collection(then)
    assert history in client.list_collections() and then not in client.list_collections()


def test_snapshots_are_not_written_to(client: MilvusClient, history: str) -> None:
    """Inserting into a snapshot or dropping it as a collection is refused with the reason."""
    then = f"{history}@then"

    for call in (
        lambda: client.insert(then, [_row(1, 1)]),
        lambda: client.delete(then, ids=[1]),
        lambda: client.drop_collection(then),
        lambda: client.compact(then),
    ):
        with pytest.raises(MilvusException, match="is a snapshot: it can be read, not changed"):
            call()


def test_the_calls_of_milvus(client: MilvusClient, history: str) -> None:
    """Snapshots are listed, described, restored with a job that is done, pinned, unpinned and dropped."""
    assert client.list_snapshots(collection_name=history) == ["then"]
    described = client.describe_snapshot(snapshot_name="then", collection_name=history)
    assert (described.name, described.description, described.collection_name) == ("then", "as it was", history)
    assert described.partition_names == ["_default"]
    with pytest.raises(MilvusException, match="already exists"):
        client.create_snapshot(snapshot_name="then", collection_name=history)
    with pytest.raises(MilvusException, match="snapshot not found"):
        client.describe_snapshot(snapshot_name="never", collection_name=history)
    with pytest.raises(MilvusException, match="snapshot name"):
        client.create_snapshot(snapshot_name="a/b", collection_name=history)

    target = f"{history}_again"
    job = client.restore_snapshot(snapshot_name="then", source_collection_name=history, target_collection_name=target)
    state = client.get_restore_snapshot_state(job_id=job)
    assert (state.state, state.progress, state.snapshot_name) == ("RestoreSnapshotCompleted", 100, "then")
    assert [one.collection_name for one in client.list_restore_snapshot_jobs(collection_name=target)] == [target]
    pin = client.pin_snapshot_data(snapshot_name="then", collection_name=history, ttl_seconds=60)
    client.drop_snapshot(snapshot_name="then", collection_name=history)
    client.unpin_snapshot_data(pin_id=pin)
    assert client.list_snapshots(collection_name=history) == []
    client.load_collection(target)
    assert _numbers(client, target) == dict.fromkeys(range(ROWS), 1)
    client.upsert(target, [_row(7, 9)])
    assert _numbers(client, target)[7] == 9


def test_snapshot_commands(server: Server, client: MilvusClient, history: str) -> None:
    """`mishards snapshot` creates, lists, describes, restores and drops, as tables and as JSON."""
    data = ("--data", str(server.data))

    made = run_mishards("snapshot", "create", history, "now", "--description", "by hand", *data)
    listed = run_mishards("snapshot", "list", history, "--json", *data)
    described = run_mishards("snapshot", "describe", history, "then", "--json", *data)
    restored = run_mishards("snapshot", "restore", history, "then", f"{history}_cli", *data)
    dropped = run_mishards("snapshot", "drop", history, "now", *data)
    missing = run_mishards("snapshot", "drop", history, "now", *data)

    assert made.returncode == 0, made.stderr
    assert "by hand" in made.stdout
    assert [one["name"] for one in json.loads(listed.stdout)] == ["then", "now"]
    assert json.loads(described.stdout)["description"] == "as it was"
    assert restored.stdout == f"collection {history}_cli restored from {history}@then\n"
    assert dropped.stdout == f"snapshot now of {history} dropped\n"
    assert missing.returncode == 1
    assert missing.stderr == f"mishards: snapshot not found[collection={history}][snapshot=now]\n"
    checked = run_mishards("metadata", "check", "--deep", *data)
    assert checked.returncode == 0, checked.stdout
    client.load_collection(f"{history}_cli")
    assert _numbers(client, f"{history}_cli") == dict.fromkeys(range(ROWS), 1)


def test_backup_commands(
    server: Server, client: MilvusClient, history: str, tmp_path: Path, launch: Callable[..., Server]
) -> None:
    """`mishards backup` copies, copies only what is new, verifies, restores under another name into the running
    cluster and whole into an empty one, and drops."""
    data, to = ("--data", str(server.data)), (tmp_path / "backups").as_uri()

    first = run_mishards("backup", "create", history, "--to", to, "--name", "one", "--json", *data)
    assert first.returncode == 0, first.stderr
    second = run_mishards("backup", "create", history, "--to", to, "--name", "two", "--snapshot", "then", *data)
    assert second.returncode == 0, second.stderr
    made = json.loads(first.stdout)
    assert made["objects_copied"] == made["objects"] > 0
    listed = json.loads(run_mishards("backup", "list", "--to", to, "--json").stdout)
    assert [one["name"] for one in listed] == ["one", "two"]
    whole = run_mishards("backup", "verify", "two", "--to", to)
    assert (whole.returncode, whole.stdout) == (0, "backup two is whole\n"), whole.stderr
    beside = run_mishards("backup", "restore", "two", history, "--from", to, "--as", f"{history}_back", *data)
    assert beside.returncode == 0, beside.stderr
    client.load_collection(f"{history}_back")
    assert _numbers(client, f"{history}_back") == dict.fromkeys(range(ROWS), 1)
    dropped = run_mishards("backup", "drop", "two", "--to", to)
    assert dropped.returncode == 0, dropped.stderr

    elsewhere = tmp_path / "server0" / "data"
    empty = run_mishards("backup", "restore", "one", "--from", to, "--data", str(elsewhere))
    assert empty.returncode == 0, empty.stderr
    with contextlib.closing(launch("serve").client()) as other:
        other.load_collection(history)
        assert _numbers(other, history) == _numbers(client, history)
