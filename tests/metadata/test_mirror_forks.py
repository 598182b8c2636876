"""The mirror when the metadata service has lost commits: two chains that share numbers are never mixed (P3, P14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mirrored import BOOKS, Door, books, push_of
from msgspec.structs import replace

from mishards.clock import SystemClock
from mishards.metadata.manifest import HEADS_MAX
from mishards.metadata.mirror import Mirror
from mishards.metadata.store import open_store
from mishards.model import FileKind, Version
from mishards.ports import CommitRequest
from mishards.testing.metadata_records import a_collection, a_commit, a_file


@asynccontextmanager
async def restored(door: Door, folder: Path, later: CommitRequest) -> AsyncIterator[None]:
    """Within it, the door leads to a service that knows the first commit, and then another one than it did."""
    store = open_store(f"sqlite:///{folder}/restored.db", SystemClock())
    await store.open()
    await store.create_collection(a_collection(BOOKS, "books", aliases=("novels",)))
    await store.commit(a_commit("u1", a_file(1), a_file(2, FileKind.SEGMENT)))
    await store.commit(later)
    door.store, first = store, door.store
    yield
    door.store = first
    await store.close()


async def test_another_chain_is_read_from_its_beginning(mirror: Mirror, door: Door, tmp_path: Path) -> None:
    """When the database was restored to an older state and went on from there, the mirror takes the new chain over, in
    a new manifest: what its users have made of the old one must not pass for a part of it."""
    await door.store.commit(a_commit("u2", a_file(3)))
    await door.store.commit(a_commit("u3", a_file(4)))
    await mirror.refresh()
    manifest = books(mirror)

    async with restored(door, tmp_path, a_commit("other", a_file(9))):
        await mirror.refresh()

    assert books(mirror) is not manifest
    assert (manifest.version, manifest.head) == (3, "u3")
    manifest = books(mirror)
    assert (manifest.version, manifest.head, sorted(manifest.files)) == (2, "other", [1, 2, 9])


async def test_a_commit_that_was_put_back_is_not_the_one_it_was(mirror: Mirror, door: Door, tmp_path: Path) -> None:
    """Under another version it does not make the old chain valid: what came before it is not the same."""
    await door.store.commit(a_commit("u2", a_file(3)))
    await door.store.commit(a_commit("u3", a_file(4)))
    await mirror.refresh()

    async with restored(door, tmp_path, a_commit("u3", a_file(4))):
        await mirror.refresh()

    assert (books(mirror).version, sorted(books(mirror).files)) == (2, [1, 2, 4])


async def test_the_service_tells_of_commits_that_were_jumped_over(mirror: Mirror, door: Door) -> None:
    """A poll that brings many commits tells the uuids of the newest; each of the others may be asked for."""
    for number in range(2, 4 + HEADS_MAX):
        await door.store.commit(a_commit(f"u{number}"))
    await mirror.refresh()
    manifest = books(mirror)
    assert manifest.confirms(4, "u4") and manifest.denies(4, "lost")
    assert not manifest.confirms(2, "u2") and not manifest.denies(2, "u2")

    await mirror.verify(BOOKS, 2, "lost")
    await mirror.verify(BOOKS, 2, "u2")

    assert manifest.confirms(2, "u2") and manifest.denies(2, "lost")


async def test_commits_of_another_chain_are_denied(mirror: Mirror, door: Door) -> None:
    """A commit that is known to be another one is, of the newest ones; of others nothing is known."""
    manifest = books(mirror)
    for number in range(2, 3 + HEADS_MAX):
        mirror.apply(await push_of(door.store, a_commit(f"u{number}")))

    assert manifest.confirms(manifest.version, manifest.head)
    assert manifest.denies(manifest.version, "other")
    assert not manifest.denies(manifest.version, manifest.head)
    assert manifest.denies(manifest.version - 1, manifest.head)
    assert not manifest.denies(manifest.version + 1, "not known yet")
    assert not manifest.denies(2, "forgotten")
    assert not manifest.denies(manifest.version, "")


async def test_what_another_process_tells_is_taken_only_where_the_chain_goes_on(mirror: Mirror, door: Door) -> None:
    """A push of several commits tells of the one before the first: if that is not the newest here, it is no help."""
    for number in (2, 3, 4):
        mirror.apply(await push_of(door.store, a_commit(f"u{number}", a_file(10 + number))))
    told = mirror.since(BOOKS, Version(1))
    assert told is not None and told.previous == "u1"

    for known in (replace(told, version=Version(5)), replace(told, after=Version(4), version=Version(5))):
        assert not mirror.apply(known)

    assert books(mirror).version == 4
    assert mirror.apply(replace(told, after=Version(4), version=Version(5), previous="u4"))
