"""A cluster whose metadata service is lost is found again in its storage (P14)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import rows as r
from msgspec.structs import replace

from mishards.cli.audit import check
from mishards.clock import SystemClock
from mishards.metadata.echo import FOLDER, collection_of
from mishards.metadata.rebuild import GAP, rebuild
from mishards.metadata.store import open_store
from mishards.model import Version
from mishards.proxy.requests import ProxyService
from mishards.storage.file import FileStorage, open_storage
from mishards.testing.cluster import LIVELY, Cluster, cluster, until
from mishards.wire import definitions as d

OFTEN = replace(LIVELY, builder=replace(LIVELY.builder, echo_s=0.1))


def storage_of(folder: Path) -> FileStorage:
    return open_storage((folder / "storage").absolute().as_uri())


async def echoed(made: Cluster, folder: Path) -> None:
    """Wait until the echoes show what the builder's own mirror shows."""
    mirror = made.of("builder")[0]._mirror

    def newest() -> dict[int, int]:
        found: dict[int, int] = {}
        for path in (folder / "storage" / FOLDER).rglob("*.json"):
            id = collection_of(str(path.relative_to(folder / "storage")))
            assert id is not None
            found[id] = max(found.get(id, 0), int(path.name.partition("-")[0]))
        return found

    await until(lambda: newest() == {m.collection.id: m.version for m in mirror.manifests()})


def lose_metadata(folder: Path) -> None:
    for file in folder.glob("metadata.db*"):
        file.unlink()


async def fill(proxy: ProxyService) -> dict[int, int]:
    """Segments, fresh rows, replaced and deleted ones; the numbers by key."""
    random = np.random.default_rng(5)
    await r.create(proxy, shards=2)
    await r.write(proxy, [r.row(key, random, 1) for key in range(40)])
    await proxy.define(d.CreateAlias(database="default", collection=r.NAME, alias="novels"))
    await proxy.flush("default", [r.NAME])
    await r.write(proxy, [r.row(key, random, 2) for key in range(30, 60)])
    await r.delete(proxy, "id < 5")
    return await r.numbers(proxy)


async def test_everything_is_found_again_without_the_metadata(tmp_path: Path) -> None:
    """Rows, deletes, definitions and aliases are back as of the last echo; writing goes on with higher versions."""
    async with cluster(tmp_path, settings=OFTEN) as made:
        before = await fill(made.proxy)
        await echoed(made, tmp_path)
    lose_metadata(tmp_path)

    store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
    await store.open()
    report = await rebuild(store, storage_of(tmp_path), SystemClock())
    checked = await check(store, storage_of(tmp_path), deep=True)
    (head,) = await store.heads()
    await store.close()

    assert report.problems == () and checked.problems == ()
    (restored,) = report.restored
    assert head.version == restored.version + GAP
    async with cluster(tmp_path, settings=OFTEN) as made:
        assert await r.numbers(made.proxy) == before
        await r.write(made.proxy, [r.row(key, np.random.default_rng(6), 3) for key in (0, 59, 70)], "novels")
        assert await r.numbers(made.proxy) == before | {0: 3, 59: 3, 70: 3}


async def test_a_dropped_collection_does_not_come_back(tmp_path: Path) -> None:
    """Its echoes go within a round."""
    async with cluster(tmp_path, settings=OFTEN) as made:
        await r.create(made.proxy)
        await echoed(made, tmp_path)
        await made.proxy.define(d.DropCollection(database="default", collection=r.NAME))
        await until(lambda: not list((tmp_path / "storage" / FOLDER).rglob("*.json")))


async def test_a_reader_with_the_old_view_takes_none_of_it_for_the_new_one(tmp_path: Path) -> None:
    """Whoever saw commits that are lost loads the restored collection whole."""
    async with cluster(tmp_path, settings=OFTEN) as made:
        await fill(made.proxy)
        await echoed(made, tmp_path)
    lose_metadata(tmp_path)

    store = open_store(f"sqlite:///{tmp_path}/metadata.db", SystemClock())
    await store.open()
    (restored,) = (await rebuild(store, storage_of(tmp_path), SystemClock())).restored
    (head,) = await store.heads()
    delta = await store.delta(head.collection_id, Version(restored.version + 3))
    await store.close()

    assert delta.after == 0 and len(delta.added) == restored.files
    assert msgspec.json.encode(restored)
