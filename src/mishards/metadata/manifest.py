"""One collection as a process knows it: its definition and its files up to a version."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msgspec.structs import replace

from mishards.model import Collection, Delta, File, FileId, FileKind, Version

NOTHING = Version(0)  # the version before the first commit


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

    def precedes(self, delta: Delta) -> bool:
        """Whether a delta that begins here is of the same chain; no if commits that are known here were lost."""
        return delta.after != self.version or not delta.previous or not self.head or delta.previous == self.head

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
