"""Backups of a cluster at work: restored, they have exactly the rows that they were made of (P13)."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import rows as r
from churn import Churn, collect

import s3
from mishards.backup import document, keeping
from mishards.backup.create import Made, create
from mishards.backup.restore import restore
from mishards.clock import SystemClock
from mishards.errors import Kind, MishardsError
from mishards.model import CollectionId
from mishards.ports import MetadataStore, Storage
from mishards.storage.file import open_storage
from mishards.testing.cluster import Cluster, cluster
from mishards.testing.metadata_records import refused
from mishards.wire import definitions as d


class Place:
    """A cluster, its parts, and a place for backups."""

    def __init__(self, made: Cluster, folder: Path, target: Storage) -> None:
        store = made.nodes[0]._store
        assert store is not None
        self.made = made
        self.target = target
        self.store: MetadataStore = store  # type: ignore[assignment]
        self.storage: Storage = open_storage((folder / "storage").as_uri())
        self.scratch = folder / "scratch-of-backup"
        self.scratch.mkdir()
        self.steps: list[tuple[int, int]] = []

    async def back_up(self, name: str, *wanted: str, snapshot: str = "", target: Storage | None = None) -> Made:
        self.steps.clear()
        to = target or self.target
        return await create(
            self.store, self.storage, to, SystemClock(), name, wanted, snapshot, self.scratch, self._note
        )

    async def restore(self, name: str, *wanted: str, under: str = "", target: Storage | None = None) -> None:
        from_ = target or self.target
        backup = await document.read(from_, name)
        made = await restore(
            self.store, self.storage, from_, SystemClock(), backup, wanted, under, self.scratch, self._note
        )
        for one in made:
            await self.made.proxy.collection("default", one.name)
            await self.made.proxy.define(d.LoadCollection(database="default", collection=one.name))

    def _note(self, done: int, total: int) -> None:
        self.steps.append((done, total))


class Failing:
    """A storage whose puts fail after some."""

    def __init__(self, inner: Storage, puts: int) -> None:
        self._inner = inner
        self._left = self._to_do = puts
        self._done = asyncio.Event()  # those before

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def put_file(self, path: str, source: Path) -> None:
        self._left -= 1
        if self._left < 0:
            await self._done.wait()
            raise MishardsError(Kind.STORAGE_UNAVAILABLE, "killed")
        await self._inner.put_file(path, source)
        self._to_do -= 1
        if not self._to_do:
            self._done.set()


class Hanging:
    """A storage whose puts are done and never answered."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self.asked = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def put_file(self, path: str, source: Path) -> None:
        await self._inner.put_file(path, source)
        self.asked.set()
        await asyncio.Event().wait()


@pytest.fixture(params=["file", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "file":
        yield open_storage((tmp_path / "backups").as_uri())
    else:
        serving = s3.serving()
        yield s3.storage_at(next(serving), tmp_path.name)
        next(serving, None)


@pytest.fixture
async def place(tmp_path: Path, target: Storage) -> AsyncIterator[Place]:
    async with cluster(tmp_path / "one") as made:
        yield Place(made, tmp_path / "one", target)


async def test_a_backup_restores_exactly(place: Place, tmp_path: Path) -> None:
    """A backup made while writes go on has the rows of one version, of everything acknowledged before it began; an
    empty cluster gets them back, aliases included, and goes on from there; so does a running one, under a
    new name."""
    await r.create(place.made.proxy)
    churn = Churn(place.made.proxy, 1)
    await churn.run(7)
    await place.made.proxy.define(d.CreateAlias(database="default", collection=r.NAME, alias="novels"))
    before = copy.deepcopy(churn.oracle)
    await place.made.proxy.snapshots.create("default", r.NAME, "s", "")

    made, _ = await asyncio.gather(place.back_up("one"), churn.run(6))

    assert place.steps[0][0] == 0 and place.steps[-1][0] == place.steps[-1][1]
    assert made.objects_copied == len(made.backup.objects) > 0
    assert await keeping.verify(place.target, made.backup, place.scratch, lambda done, total: None) == []
    await place.back_up("of-snapshot", r.NAME, snapshot="s")
    await place.restore("of-snapshot", r.NAME, under="again")
    await churn.compare("again", before)
    error = await refused(Kind.UNEXPECTED, place.restore("one"))
    assert error.message == f"duplicate name: {r.NAME} is already used; restore it under another"
    assert await place.store.pins() == await place.store.pins((await place.store.heads())[0].collection_id)
    async with cluster(tmp_path / "two") as other:
        empty = Place(other, tmp_path / "two", place.target)
        await empty.restore("of-snapshot")
        restored = Churn(other.proxy, 2)
        restored.oracle = copy.deepcopy(before)
        await restored.compare("novels", before)
        await restored.run(5)
        await restored.compare(r.NAME, restored.oracle)


async def test_backups_share_what_has_not_changed(place: Place) -> None:
    """A second backup copies only what is new; dropping the first leaves what the second needs, dropping both
    nothing."""
    await r.create(place.made.proxy)
    churn = Churn(place.made.proxy, 3)
    await churn.run(6)
    await place.made.proxy.snapshots.create("default", r.NAME, "s", "")
    first = await place.back_up("first", snapshot="s")
    again = await place.back_up("again", snapshot="s")
    await churn.run(3)
    second = await place.back_up("second")

    assert (again.objects_copied, again.bytes_copied) == (0, 0)
    assert again.backup.objects == first.backup.objects
    shared = {one.path for one in first.backup.objects} & {one.path for one in second.backup.objects}
    assert second.objects_copied == len(second.backup.objects) - len(shared)
    assert await keeping.drop(place.target, "first") == 0
    await keeping.drop(place.target, "again")
    assert await keeping.verify(place.target, second.backup, place.scratch, lambda done, total: None) == []
    assert [one.name for one in await document.read_all(place.target)] == ["second"]
    await keeping.drop(place.target, "second")
    assert await place.target.list("") == []
    await refused(Kind.PARAMETER_INVALID, keeping.drop(place.target, "second"))


async def test_a_killed_backup_is_none(place: Place) -> None:
    """A backup that ends at any copy is not listed; made again it copies only the rest, except what is not whole."""
    await r.create(place.made.proxy)
    churn = Churn(place.made.proxy, 4)
    await churn.run(9)
    await place.made.proxy.snapshots.create("default", r.NAME, "s", "")
    total = len(
        (await place.back_up("all", snapshot="s", target=open_storage(f"{place.scratch.as_uri()}/x"))).backup.objects
    )
    assert total >= 2

    failing: Storage = Failing(place.target, 2)  # type: ignore[assignment]
    await refused(Kind.STORAGE_UNAVAILABLE, place.back_up("b", snapshot="s", target=failing))

    assert await document.read_all(place.target) == []
    await refused(Kind.PARAMETER_INVALID, document.read(place.target, "b"))
    here = await place.target.list(document.OBJECTS)
    assert len(here) == 2
    await place.target.delete(here[:1])
    await place.target.put(here[0], b"torn")
    made = await place.back_up("b", snapshot="s")
    assert made.objects_copied == total - 1
    assert await keeping.verify(place.target, made.backup, place.scratch, lambda done, total: None) == []
    assert await document.names(place.target, document.UNFINISHED) == []
    await refused(Kind.PARAMETER_INVALID, place.back_up("b"))


async def test_what_a_killed_restore_has_copied_goes(place: Place) -> None:
    """No collection is there. Its objects stay as long as it could still be running; then they go, and nothing else."""
    await r.create(place.made.proxy)
    churn = Churn(place.made.proxy, 7)
    await churn.run(9)
    await place.back_up("b")
    known = {str(head.collection_id) for head in await place.store.heads()}
    hanging = Hanging(place.storage)
    place.storage = hanging  # type: ignore[assignment]
    restoring = asyncio.create_task(place.restore("b", under="again"))
    await hanging.asked.wait()
    restoring.cancel()
    await asyncio.gather(restoring, return_exceptions=True)
    here = {path.partition("/")[0] for path in await place.storage.list("")}
    (folder,) = here - known - {"manifest"}

    assert await place.store.take_folders(0.0, 10) == []
    await place.store.renew_folder(CollectionId(int(folder)), 0.0)
    await place.made.stop(place.made.of("builder")[0])  # whose quarantine is a day
    await collect(place.made, place.scratch.parent)

    assert await place.storage.list(f"{folder}/") == []
    assert len(await place.store.heads()) == 1
    await churn.compare(r.NAME, churn.oracle)


async def test_damage_is_found(place: Place) -> None:
    """`verify` names an object that is missing and one that has changed; a document that has changed is refused."""
    await r.create(place.made.proxy)
    await Churn(place.made.proxy, 5).run(9)
    made = await place.back_up("b")
    lost, torn = (document.OBJECTS + one.path for one in made.backup.objects[:2])
    whole = await place.target.get(torn)
    await place.target.delete([lost, torn])
    await place.target.put(torn, bytes([whole[0] ^ 1]) + whole[1:])

    problems = await keeping.verify(place.target, made.backup, place.scratch, lambda done, total: None)

    assert len(problems) == 2
    assert problems[0].endswith(f"'{lost}' does not exist in {place.target._name}")  # type: ignore[attr-defined]
    assert problems[1].startswith(f"object {made.backup.objects[1].path}: ") and "crc32" in problems[1]
    with pytest.raises(MishardsError, match=r"does not exist|is corrupt"):
        await place.restore("b", under="again")
    assert [one.name for one in await place.made.proxy.collections("default")] == [r.NAME]
    path = document.FOLDER + "b" + document.COMPLETE
    sealed = await place.target.get(path)
    await place.target.delete([path])
    await place.target.put(path, sealed[:-40] + bytes(8) + sealed[-32:])
    await refused(Kind.STORAGE_UNAVAILABLE, document.read(place.target, "b"))


async def test_nothing_is_dropped_under_a_backup(place: Place) -> None:
    """While a backup is unfinished no other is dropped: it may count on its objects."""
    await r.create(place.made.proxy)
    await Churn(place.made.proxy, 6).run(3)
    await place.back_up("b")
    await place.target.put(document.FOLDER + "c" + document.UNFINISHED, b"")

    error = await refused(Kind.PARAMETER_INVALID, keeping.drop(place.target, "b"))

    assert error.message == "backup c is unfinished: make it again or drop it first"
    await keeping.drop(place.target, "c")
    await keeping.drop(place.target, "b")
    assert await place.target.list("") == []
