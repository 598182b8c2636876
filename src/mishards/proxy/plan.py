"""The plan of a search: one version, one layout per shard, the exact files (P7, P11). Pure.

A layout p of a shard fixes its segments; fresh rows are those committed up to v that no segment of p holds yet. Any
p <= v gives the same rows, so the newest p whose segments are all ready on some reader is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from mishards.model import File, FileId, FileKind, PartitionId, Version


@dataclass(frozen=True, slots=True)
class Plan:
    """The data files that make up version `version`; tombstones are the readers' business."""

    version: Version
    layouts: Mapping[int, Version]  # by shard
    files: tuple[File, ...]
    head: str = ""  # uuid of the commit `version`

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def make_plan(
    files: Mapping[FileId, File],
    version: Version,
    oldest: Version,
    shards: int,
    partitions: Collection[PartitionId],
    ready: Callable[[File], bool],
    head: str = "",
) -> Plan:
    """The plan at `version`, the commit `head`, over the given partitions. `oldest`: layouts before it are no longer
    fully known."""
    data = [f for f in files.values() if f.kind is not FileKind.TOMBSTONES and f.partition_id in partitions]
    chosen: list[File] = []
    layouts: dict[int, Version] = {}
    for shard in range(shards):
        mine = [file for file in data if file.shard == shard]
        layout = serving_layout([f for f in mine if f.kind is FileKind.SEGMENT], version, oldest, ready)
        layouts[shard] = layout
        chosen.extend(file for file in mine if in_plan(file, layout, version))
    return Plan(version, layouts, tuple(chosen), head)


def serving_layout(
    segments: Iterable[File], version: Version, oldest: Version, ready: Callable[[File], bool]
) -> Version:
    """The newest layout <= version whose segments are all ready; `version` itself when there is none."""
    layout = version
    segments = list(segments)
    while layout >= oldest:
        late = [file.added for file in segments if file.live_at(layout) and not ready(file)]
        if not late:
            return layout
        layout = Version(min(late) - 1)
    return version


def in_plan(file: File, layout: int, version: int) -> bool:
    """Whether a data file belongs to the plan (layout, version) of its shard."""
    if file.kind is FileKind.SEGMENT:
        return file.live_at(layout)
    return file.added <= version and (file.removed == 0 or file.removed > layout)
