"""What a commit changes, as values: the files as the commit lists them, and the delta that is pushed (P3 d). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from mishards.model import Commit, Delta, File, FileKind, Version
from mishards.ports import CommitRequest


def stamp(file: File, version: Version) -> File:
    """The file as the commit `version` lists it. Fresh rows have applied every tombstone before their own version."""
    horizon = version if file.kind is FileKind.ROWS else file.horizon
    return replace(file, added=version, removed=Version(0), horizon=horizon)


def delta_of(request: CommitRequest, commit: Commit) -> Delta:
    """What `commit`, the outcome of `request`, changed: the push for readers and proxies."""
    return Delta(
        collection_id=commit.collection_id,
        after=Version(commit.version - 1),
        version=commit.version,
        ts=commit.ts,
        head=commit.uuid,
        added=tuple(stamp(file, commit.version) for file in request.added),
        removed=dict.fromkeys(request.removed, commit.version),
        payloads=request.payloads,
    )
