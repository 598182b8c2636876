"""Snapshots in a whole cluster: each shows its version exactly, whatever became of the collection (I4, I5, P13)."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import rows as r
from churn import KEYS, Churn, collect

from mishards.errors import Kind
from mishards.proxy.requests import QueryRequest
from mishards.testing.cluster import Cluster, cluster, until
from mishards.testing.metadata_records import refused
from mishards.wire import definitions as d
from oracle import Oracle

NAMED = {"database": "default", "collection": r.NAME}


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path, readers=2) as made:
        yield made


async def snapshot(churn: Churn, name: str) -> Oracle:
    """A snapshot, and what the oracle says of it."""
    await churn.proxy.snapshots.create("default", r.NAME, name, "")
    return copy.deepcopy(churn.oracle)


async def test_snapshots_show_their_versions_exactly(made: Cluster, tmp_path: Path) -> None:
    """Searches and queries of `collection@snapshot` equal the fold of the commits up to it, while rows are replaced and
    deleted, segments are merged and indexed, and everything that no pin needs is collected at once."""
    await r.create(made.proxy)
    churn = Churn(made.proxy, 1)
    taken = {}
    for number in range(4):
        await churn.run(4)
        await collect(made, tmp_path)
        taken[f"s{number}"] = await snapshot(churn, f"s{number}")
        for name, oracle in taken.items():
            await churn.compare(f"{r.NAME}@{name}", oracle)
    await churn.run(8)
    await collect(made, tmp_path)

    for name, oracle in taken.items():
        await churn.compare(f"{r.NAME}@{name}", oracle)
    await churn.compare(r.NAME, churn.oracle)


async def test_a_dropped_snapshot_frees_its_files(made: Cluster, tmp_path: Path) -> None:
    """Files that only a snapshot needs stay as long as it does, and go once it is dropped; its name is unknown then."""
    await r.create(made.proxy)
    churn = Churn(made.proxy, 2)
    await churn.run(3)
    oracle = await snapshot(churn, "old")
    pin = await made.proxy.snapshots.describe("default", r.NAME, "old")
    store, manifest = made.nodes[0]._store, made.nodes[0]._mirror.find("default", r.NAME)
    assert store is not None and manifest is not None
    needed = {part.path for file in (await store.pinned(pin.id))[1].added for part in file.parts if part.path}

    def listed() -> set[str]:
        return {part.path for file in manifest.files.values() for part in file.parts if not file.removed}

    await r.delete(made.proxy, "id >= 0")
    churn.oracle.delete_where(lambda row: True)
    await churn.run(2)
    await made.proxy.flush("default", [r.NAME])
    await until(lambda: not needed & listed())
    await collect(made, tmp_path)
    await churn.compare(f"{r.NAME}@old", oracle)
    assert needed and all((tmp_path / "storage" / path).exists() for path in needed)

    await made.proxy.snapshots.drop("default", r.NAME, "old")
    await made.proxy.snapshots.drop("default", r.NAME, "old")
    await collect(made, tmp_path)
    assert not any((tmp_path / "storage" / path).exists() for path in needed)
    await refused(Kind.COLLECTION_NOT_FOUND, made.proxy.collection("default", f"{r.NAME}@old"))
    await churn.compare(r.NAME, churn.oracle)


async def test_a_restored_collection_lives_its_own_life(made: Cluster, tmp_path: Path) -> None:
    """A collection restored from a snapshot has its rows, goes on by itself with writes and merges, and outlives both
    the snapshot and the collection it came from; so does one restored from a snapshot of it."""
    await r.create(made.proxy)
    churn = Churn(made.proxy, 3)
    await churn.run(5)
    was = await snapshot(churn, "s")
    await churn.run(3)

    restored = await made.proxy.snapshots.restore("default", r.NAME, "s", "again")
    assert restored.origin == f"{r.NAME}@s"
    await refused(Kind.UNEXPECTED, made.proxy.snapshots.restore("default", r.NAME, "s", "again"))
    await made.proxy.define(d.LoadCollection(database="default", collection="again"))
    await churn.compare("again", was)
    await made.proxy.snapshots.create("default", "again", "t", "")
    await made.proxy.snapshots.restore("default", "again", "t", "third")
    await made.proxy.define(d.LoadCollection(database="default", collection="third"))
    await made.proxy.define(d.DropCollection(**NAMED))
    await refused(Kind.COLLECTION_NOT_FOUND, made.proxy.snapshots.list("default", r.NAME))
    upserted = [r.row(key, churn.random, 99) for key in range(0, KEYS, 2)]
    await r.write(made.proxy, upserted, "again")
    now = copy.deepcopy(was)
    now.upsert(upserted)
    await made.proxy.flush("default", ["again"])
    await collect(made, tmp_path)
    await churn.compare("again", now)
    await churn.compare("again@t", was)
    await churn.compare("third", was)
    await made.proxy.define(d.DropCollection(database="default", collection="again"))
    await churn.compare("third", was)


async def test_snapshots_are_only_read(made: Cluster) -> None:
    """Writing to a snapshot, or changing its definition, is refused; loading it is a success; a count works."""
    await r.create(made.proxy)
    churn = Churn(made.proxy, 4)
    await churn.run(1)
    await snapshot(churn, "s")
    name = f"{r.NAME}@s"

    for call in (
        r.write(made.proxy, [r.row(1, churn.random)], name),
        made.proxy.define(d.DropCollection(database="default", collection=name)),
        made.proxy.define(d.CreatePartition(database="default", collection=name, partition="p")),
        made.proxy.flush("default", [name]),
    ):
        error = await refused(Kind.PARAMETER_INVALID, call)
        assert error.message == f"{name} is a snapshot: it can be read, not changed"
    await made.proxy.define(d.LoadCollection(database="default", collection=name))
    assert await made.proxy.load_progress("default", name) == 100
    counted = await made.proxy.query(QueryRequest(collection=name, count=True))
    assert counted.count == len(churn.oracle)
    assert [one.name for one in await made.proxy.collections("default")] == [r.NAME]
