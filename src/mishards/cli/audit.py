"""Checking that the metadata is whole and that what it lists is in storage. Plain values; `metadata` prints them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from mishards import plugins
from mishards.clock import SystemClock
from mishards.config import Settings, masked, metadata_url
from mishards.errors import MishardsError, SetupError
from mishards.metadata.store import SqlStore
from mishards.model import CollectionId, Commit, Delta, File, Part, Version
from mishards.ports import Storage
from mishards.segment.footer import verify

ROWS_KINDS = frozenset({"fresh", "scalars", "vectors"})  # of parts that have one row for each of their file


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` is empty if everything is as it should be."""

    revision: str
    expected_revision: str
    collections: int = 0
    commits: int = 0
    files: int = 0
    objects: int = 0
    read: bool = False  # whether the objects were read, too
    problems: tuple[str, ...] = ()


@asynccontextmanager
async def sql_store(settings: Settings) -> AsyncIterator[SqlStore]:
    """The metadata service as it is, not migrated. SetupError if it is not one over SQL."""
    url = metadata_url(settings)
    store = plugins.load("metadata", plugins.scheme(url))(url, SystemClock())
    if not isinstance(store, SqlStore):
        raise SetupError(f"metadata {masked(url)} is not a metadata service over SQL")
    try:
        yield store
    finally:
        await store.close()


async def check(store: SqlStore, storage: Storage, deep: bool) -> Checked:
    """Look at everything. `deep`: read every object, too, and compare sizes, rows and checksums."""
    found, expected = await store.revisions()
    if found != expected:
        problem = f"schema revision is {found or 'none'}, this program's is {expected}: run `mishards metadata upgrade`"
        return Checked(revision=found, expected_revision=expected, problems=(problem,))
    problems = await store.dangling()
    commits, files, objects = 0, 0, 0
    for head in await store.heads():
        try:
            delta = await store.delta(head.collection_id, Version(0))
            chain = await store.commits(head.collection_id, Version(0))
        except MishardsError as error:
            problems.append(f"collection {head.collection_id}: {error.message}")
            continue
        parts = [(file, part) for file in delta.added for part in file.parts if part.path]
        commits, files, objects = commits + len(chain), files + len(delta.added), objects + len(parts)
        problems += [f"collection {head.collection_id}: {problem}" for problem in broken_links(delta, chain)]
        problems += await _missing(store, storage, head.collection_id, delta.added)
        if deep:
            problems += [problem async for problem in _damaged(storage, parts)]
    return Checked(
        revision=found,
        expected_revision=expected,
        collections=len(await store.heads()),
        commits=commits,
        files=files,
        objects=objects,
        read=deep,
        problems=tuple(problems),
    )


def broken_links(delta: Delta, chain: Sequence[Commit]) -> Iterator[str]:
    """What is wrong with a chain whose oldest links may be forgotten (I2), read after `delta`. Pure."""
    for one, next in itertools.pairwise(chain):
        if next.version != one.version + 1:
            yield f"versions {one.version} and {next.version} follow each other"
        elif next.previous != one.uuid:
            yield f"version {next.version} does not link to the one before"
        if next.ts <= one.ts:
            yield f"the timestamp of version {next.version} is not above that of the one before"
    heads = {commit.version: commit.uuid for commit in chain}
    if delta.version and heads.get(delta.version) != delta.head:
        yield f"its newest version {delta.version} is not that of its last commit"
    for file in delta.added:
        if not 0 < file.added <= delta.version:
            yield f"file {file.id} was added by version {file.added}, the newest is {delta.version}"


async def _missing(store: SqlStore, storage: Storage, collection_id: CollectionId, files: Sequence[File]) -> list[str]:
    inline = [file.id for file in files if file.inline]
    payloads = await store.payloads(inline)
    named = {part.path: file.id for file in files for part in file.parts if part.path}
    stored: set[str] = set()
    for folder in sorted({path.partition("/")[0] for path in named}):  # a restored snapshot names another one's
        stored.update(await storage.list(f"{folder}/"))
    lost = [f"collection {collection_id}: the payload of file {id} is missing" for id in inline if id not in payloads]
    gone = [
        f"collection {collection_id}: object {path} of file {named[path]} is missing"
        for path in sorted(named.keys() - stored)
    ]
    return [*lost, *gone]


async def _damaged(storage: Storage, parts: Sequence[tuple[File, Part]]) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "object"
        for file, part in parts:
            try:
                await storage.fetch(part.path, copy)
                problem = _difference(copy, file, part)
            except MishardsError as error:
                problem = error.message.replace(str(copy), part.path)
            if problem:
                yield f"collection {file.collection_id}: object {part.path}: {problem}"


def _difference(copy: Path, file: File, part: Part) -> str:
    size = copy.stat().st_size
    if size != part.bytes:
        return f"it has {size} bytes, {part.bytes} are listed"
    footer = verify(copy)
    if part.kind in ROWS_KINDS and footer.rows != file.rows:
        return f"it has {footer.rows} rows, {file.rows} are listed"
    return ""
