"""What a commit changes, as values: the files as the commit lists them, and the delta that is pushed (P3 d). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from mishards.model import Commit, Delta, File, FileKind, Version
from mishards.ports import CommitRequest


def stamp(file: File, version: Version, ts: int) -> File:
    """The file as the commit `version` of hybrid timestamp `ts` lists it. Fresh rows have applied every tombstone
    before their own version."""
    if file.kind is FileKind.ROWS:
        return replace(file, added=version, removed=Version(0), horizon=version, oldest_ts=ts, newest_ts=ts)
    return replace(file, added=version, removed=Version(0))


def delta_of(request: CommitRequest, commit: Commit) -> Delta:
    """What `commit`, the outcome of `request`, changed: the push for readers and proxies."""
    return Delta(
        collection_id=commit.collection_id,
        after=Version(commit.version - 1),
        version=commit.version,
        ts=commit.ts,
        head=commit.uuid,
        previous=commit.previous,
        added=tuple(stamp(file, commit.version, commit.ts) for file in request.added),
        removed=dict.fromkeys(request.removed, commit.version),
        payloads=request.payloads,
    )
