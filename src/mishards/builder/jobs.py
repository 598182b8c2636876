"""The heavy computations: from verified local files to new local files, nothing else.

They run in a process of their own (`worker.py`), so a job is a function of this module, and what it is given and gives
back are values that can be pickled. Little is imported: that process is started while searches wait for the cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mishards.errors import Kind, MishardsError
from mishards.model import Field, File, Index, Schema
from mishards.ports import IndexKind
from mishards.segment.footer import append_footer
from mishards.segment.fresh import Tombstones
from mishards.segment.read import open_rows, open_vectors, read_deletes
from mishards.segment.rewrite import Input, live_mask, live_table
from mishards.segment.write import SegmentFiles, write_segment


@dataclass(frozen=True, slots=True)
class LocalSegment:
    """Verified local copies of a segment's parts."""

    file: File
    scalars: Path
    vectors: Sequence[tuple[Field, Path]]
    deletes: Path | None


def write_index(
    kind: IndexKind,
    definition: Index,
    segment: tuple[int, int, int],
    dim: int,
    source: Path,
    threads: int,
    target: Path,
) -> int:
    """Build an index over the vectors part `source`; its size in bytes. `segment`: rows, collection id, shard."""
    rows, collection_id, shard = segment
    kind.build(open_vectors(source, rows, dim), definition.metric, definition.params, threads, target)
    append_footer(target, kind="index", rows=rows, collection_id=collection_id, shard=shard)
    return target.stat().st_size


def write_live(
    segments: Sequence[LocalSegment],
    stones: Sequence[tuple[int, Tombstones]],
    schema: Schema,
    folder: Path,
    expired_ts: int = 0,
) -> SegmentFiles | None:
    """The live rows of the segments, written to `folder`; None if there are none. Those up to `expired_ts` are dead."""
    inputs = [_open(segment) for segment in segments]
    pk = schema.primary.column
    table = live_table(inputs, stones, pk, expired_ts)
    dead = sum(int(np.count_nonzero(~live_mask(each, stones, pk, expired_ts))) for each in inputs)
    _refuse_loss([segment.file for segment in segments], dead, table.num_rows)
    if table.num_rows == 0:
        return None
    return write_segment(table, schema, folder, segments[0].file.collection_id, segments[0].file.shard)


def _refuse_loss(files: Sequence[File], dead: int, live: int) -> None:
    """INTERNAL unless every listed row is live or proved dead, and all that were listed as dead are."""
    rows, dead_before = sum(file.rows for file in files), sum(file.dead for file in files)
    if live + dead != rows or dead < dead_before:
        raise MishardsError(
            Kind.INTERNAL,
            f"refused to rewrite {rows} rows ({dead_before} listed as dead) as {live} live and {dead} dead ones",
        )


def _open(segment: LocalSegment) -> Input:
    rows = open_rows(segment.scalars, segment.vectors)
    dead = read_deletes(segment.deletes, segment.file.rows) if segment.deletes else None
    return Input(rows, segment.file.partition_id, dead)
