"""One collection as a process knows it: its definition and its files up to a version."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from mishards.model import Collection, Delta, File, FileId, FileKind, Version

K = TypeVar("K")
V = TypeVar("V")

NOTHING = Version(0)  # the version before the first commit
HEADS_MAX = 64  # commits whose uuids are told and remembered: a proxy is seldom further behind a reader, or ahead (P15)


@dataclass(slots=True, eq=False)
class Manifest:
    """One collection as this process knows it. Changed in place, and only between two awaits of the mirror's task or
    in `Mirror.apply`; whoever plans from it copies what it needs before it awaits.

    `segments` and `fresh` (rows and tombstones) share out `files`: a commit of rows concerns the few fresh files only,
    and what looks at those need not look at thousands of segments.
    """

    collection: Collection
    version: Version = NOTHING
    ts: int = 0
    head: str = ""
    files: dict[FileId, File] = field(default_factory=dict)  # with those removed not long ago
    segments: dict[FileId, File] = field(default_factory=dict)
    fresh: dict[FileId, File] = field(default_factory=dict)
    layout: Version = NOTHING  # the newest version that added or removed a segment; at first the version loaded
    frozen: bool = False  # the view of a pin: it never changes, is read from only, and is loaded when it is asked for
    oldest: Version = NOTHING  # the oldest layout whose files are all here: earlier ones have lost files to `_purge`
    _removed: deque[FileId] = field(default_factory=deque)  # those of `files`, in the order of their removal
    _heads: dict[Version, str] = field(default_factory=dict)  # uuids of commits that are known, the oldest first
    _lost: dict[str, None] = field(default_factory=dict)  # uuids of commits that are not of this chain

    def __post_init__(self) -> None:
        for file in self.files.values():
            self.put(file)

    def live(self) -> list[File]:
        """The files live at `version`."""
        return [file for file in self.files.values() if file.removed == 0]

    def live_fresh(self) -> list[File]:
        """The fresh files among them."""
        return [file for file in self.fresh.values() if file.removed == 0]

    def live_rows(self) -> int:
        """Rows in live files, less those that delete bitmaps mask; fresh tombstones are not subtracted."""
        return sum(file.rows - file.dead for file in self.live() if file.kind is not FileKind.TOMBSTONES)

    def load(self, delta: Delta) -> None:
        """Take over a delta that lists all live files. When its segments came to be is not known; any layout from
        then to now has the same ones."""
        self.files, self.segments, self.fresh, self._removed = {}, {}, {}, deque()
        for file in delta.added:
            self.put(file)
        self.version, self.ts, self.head, self.layout = delta.version, delta.ts, delta.head, delta.version
        self.oldest = delta.version
        self._heads = {}
        self._remember_heads(delta)

    def precedes(self, delta: Delta) -> bool:
        """Whether a delta that begins here is of the same chain; no if commits that are known here were lost."""
        return delta.after != self.version or not delta.previous or not self.head or delta.previous == self.head

    def confirms(self, version: int, head: str) -> bool:
        """Whether the commit `version` is known to be `head`; nobody asks for "", which is no uuid."""
        return not head or self._heads.get(Version(version)) == head

    def denies(self, version: int, head: str) -> bool:
        """Whether the commit `version` is known to be another one than `head`, which is of another chain, then: one of
        the two was lost. Where neither `confirms` nor this is true, the metadata service knows: `Mirror.verify`."""
        known = self._heads.get(Version(version), "")
        return head in self._lost or (known != head and known != "" and head != "")

    def learn(self, version: int, head: str, there: bool) -> None:
        """The commit `version` is `head`, or not."""
        if there:
            _remember(self._heads, Version(version), head)
        else:
            _remember(self._lost, head, None)

    def since(self, version: Version) -> Delta | None:
        """What happened after `version`, as this process knows it; None if it does not know all of that."""
        previous = self._heads.get(version)
        if previous is None or not self.oldest <= version < self.version:
            return None
        return Delta(
            collection_id=self.collection.id,
            after=version,
            version=self.version,
            ts=self.ts,
            head=self.head,
            previous=previous,
            heads={known: uuid for known, uuid in sorted(self._heads.items()) if version < known <= self.version},
            added=tuple(replace(file, removed=NOTHING) for file in self.files.values() if file.added > version),
            removed={file.id: file.removed for file in self.files.values() if file.removed > version},
        )

    def merge(self, delta: Delta) -> bool:
        """Add a delta that begins at or before `version` and ends after it; whether it removed files."""
        layout = self.layout
        known = {id for id in delta.removed if id in self.files and self.files[id].removed}
        for file in delta.added:
            self.put(file)
            if file.kind is FileKind.SEGMENT:
                layout = max(layout, file.added)
        removed = [id for id in delta.removed if id in self.files]  # others are purged already
        self._removed.extend(sorted((id for id in removed if id not in known), key=delta.removed.__getitem__))
        for id in removed:
            self.put(replace(self.files[id], removed=delta.removed[id]))
            if id in self.segments:
                layout = max(layout, delta.removed[id])
        self.version, self.ts, self.head, self.layout = delta.version, delta.ts, delta.head, layout
        self._remember_heads(delta)
        return bool(removed)

    def forget_removed(self, version: Version) -> bool:
        """Drop the files removed up to a version, and with them the layouts before; whether there were any."""
        before = len(self._removed)
        while self._removed and self.files[self._removed[0]].removed <= version:
            file = self.files.pop(self._removed.popleft())
            (self.segments if file.kind is FileKind.SEGMENT else self.fresh).pop(file.id)
            self.oldest = max(self.oldest, file.removed)
        return len(self._removed) < before

    def put(self, file: File) -> None:
        """List a file, in place of its older record."""
        self.files[file.id] = file
        (self.segments if file.kind is FileKind.SEGMENT else self.fresh)[file.id] = file

    def _remember_heads(self, delta: Delta) -> None:
        for version, uuid in delta.heads.items():
            _remember(self._heads, version, uuid)
        _remember(self._heads, delta.version, delta.head)


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """In place of the oldest, when there are many."""
    known[key] = value
    if len(known) > HEADS_MAX:
        del known[next(iter(known))]
