"""Rules of the protocol switched off one at a time, to prove that the simulation would notice (tests of the tests).

A mutant replaces one function of the product by one that breaks one rule. The product knows nothing of it.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from mishards.errors import Kind, MishardsError
from mishards.model import Consistency, FileKind


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """`places`: what is replaced, as module:name or module:class.name; `change`: from the original to the mutant."""

    rule: str
    places: tuple[str, ...]
    change: Callable[[Any], Any]
    starts: int = 0  # a seed from which it is found soon

    @contextmanager
    def applied(self) -> Iterator[None]:
        found = [_find(place) for place in self.places]
        originals = [getattr(owner, name) for owner, name in found]
        try:
            for (owner, name), original in zip(found, originals, strict=True):
                setattr(owner, name, self.change(original))
            yield
        finally:
            for (owner, name), original in zip(found, originals, strict=True):
                setattr(owner, name, original)


def _find(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(f"mishards.{module}")
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    getattr(owner, name)  # a rule that has moved must be found again
    return owner, name


def _checks_nothing(original: Any) -> Any:
    return lambda connection, leases: None


def _everything_applied(original: Any) -> Any:
    return lambda files: math.inf


def _horizon_ahead(original: Any) -> Any:
    def new_segment(**values: Any) -> Any:
        return original(**{**values, "horizon": values["horizon"] + 2})

    return new_segment


def _sealed_horizon_ahead(original: Any) -> Any:
    def next_batch(*arguments: Any) -> Any:
        batch = original(*arguments)
        if batch is None:
            return None
        return dataclasses.replace(batch, horizon=batch.horizon + 2)

    return next_batch


def _shared_parts_go(original: Any) -> Any:
    return lambda expired, kept: original(expired, ())


def _any_token_is_fenced(original: Any) -> Any:
    """An upload that no record names is taken for garbage, though the lease it was made under may still list it."""
    return lambda known, collection_id, paths: original(_NoLeases(known), collection_id, paths)


class _NoLeases:
    """A connection, or plain tables, where nobody holds a lease."""

    leases: Mapping[str, Any] = {}

    def __init__(self, known: Any) -> None:
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)

    def scalars(self, statement: Any) -> Any:
        return [] if "leases" in str(statement) else self._known.scalars(statement)


def _nothing_is_pinned(original: Any) -> Any:
    return lambda *arguments: original(*arguments) != original(*arguments)  # an expression, or a value


def _newest_fresh_rows(original: Any) -> Any:
    """Segments of the layout, but fresh rows as they are now."""

    def in_plan(file: Any, layout: int, version: int) -> bool:
        return bool(original(file, layout if file.kind is FileKind.SEGMENT else version, version))

    return in_plan


def _own_version(original: Any) -> Any:
    def sources(self: Any, files: Any, version: int, now_s: float, expired_ts: int = 0) -> Any:
        return original(self, files, self.applied, now_s, expired_ts)

    return sources


def _kills_nothing(original: Any) -> Any:
    return lambda self, *arguments: None


def _removes_blindly(original: Any) -> Any:
    def remove(*arguments: Any) -> None:
        try:
            original(*arguments)
        except MishardsError as error:
            if error.kind is not Kind.CONFLICT:
                raise

    return remove


def _lost_is_failed(original: Any) -> Any:
    async def commit(self: Any, request: Any, *arguments: Any) -> Any:
        try:
            return await self._store.commit(request)
        except MishardsError as error:
            if error.kind is Kind.METADATA_UNAVAILABLE:
                raise MishardsError(Kind.FENCED, error.message) from error
            raise

    return commit


def _strong_from_cache(original: Any) -> Any:
    def suffices(self: Any, manifest: Any, level: Any, guarantee_ts: int) -> bool:
        return bool(original(self, manifest, Consistency.EVENTUALLY if level == Consistency.STRONG else level, 0))

    return suffices


def _never_behind(original: Any) -> Any:
    return lambda self, manifest, level, guarantee_ts: False


def _never_old(original: Any) -> Any:
    return lambda self: 0.0


def _gaps_are_fine(original: Any) -> Any:
    def apply(self: Any, delta: Any) -> bool:
        manifest = self._manifests.get(delta.collection_id)
        if manifest is not None and delta.after > manifest.version:
            delta = replace(delta, after=manifest.version)
        return bool(original(self, delta))

    return apply


def _admits_all(original: Any) -> Any:
    async def admit(self: Any, shards: Iterable[Any]) -> None:
        """Everything passes."""

    return admit


def _half_a_store(original: Any) -> Any:
    """Only the first file of a commit must be in storage before it."""

    async def put_all(puts: Iterable[Any]) -> None:
        for put in puts:
            try:
                await put()
            except MishardsError:
                return

    return put_all


MUTANTS: dict[str, Mutant] = {
    "no_nonce_check": Mutant(
        "I1: a commit proves its leases",
        ("metadata.chain:_hold_leases", "testing.sim.plain_tables:hold_leases"),
        _checks_nothing,
        2,
    ),
    "tombstones_dropped_early": Mutant(
        "P6: a tombstone stays until all files have applied it",
        ("builder.policy:applied_by_all", "builder.dropping:applied_by_all"),
        _everything_applied,
    ),
    "merged_horizon_ahead": Mutant("P5: a merge's horizon", ("builder.rewriting:new_segment",), _horizon_ahead),
    "sealed_horizon_ahead": Mutant("P5: a seal's horizon", ("writer.sealing:next_batch",), _sealed_horizon_ahead),
    "shared_parts_collected": Mutant(
        "P12: objects that live records share stay", ("builder.collecting:collectable_paths",), _shared_parts_go
    ),
    "live_uploads_collected": Mutant(
        "P12: an upload whose token may still commit stays",
        ("metadata.garbage:orphans", "testing.sim.plain_tables:orphans"),
        _any_token_is_fenced,
        starts=21,
    ),
    "pins_ignored": Mutant(
        "P13: what a snapshot holds stays",
        ("metadata.garbage:is_pinned", "testing.sim.plain_tables:is_pinned"),
        _nothing_is_pinned,
    ),
    "mixed_layouts": Mutant("P7: one layout a shard", ("proxy.plan:in_plan",), _newest_fresh_rows, 1),
    "own_version": Mutant(
        "P8: a reader answers at the version asked for",
        ("reader.hosted:Hosted.sources",),
        _own_version,
        1,
    ),
    "tombstones_skipped": Mutant(
        "P4: tombstones kill rows of segments", ("reader.segments:HeldSegment.apply",), _kills_nothing
    ),
    "inputs_not_live": Mutant(
        "P5: inputs must be live",
        ("metadata.chain:_remove_files", "testing.sim.plain_tables:remove_files"),
        _removes_blindly,
        2,
    ),
    "lost_answer_is_failure": Mutant(
        "P3: a lost answer to COMMIT is resolved first", ("writer.publishing:Publisher._commit",), _lost_is_failed, 30
    ),
    "strong_from_cache": Mutant("P10: Strong asks", ("proxy.versions:Versions.suffices",), _strong_from_cache),
    "session_from_cache": Mutant("P10: Session waits", ("proxy.versions:Versions._is_behind",), _never_behind, 1),
    "bounded_without_bound": Mutant("P10: Bounded asks", ("proxy.versions:Versions._age_s",), _never_old, 60),
    "gaps_applied": Mutant("P9: a push after a gap is refused", ("metadata.mirror:Mirror.apply",), _gaps_are_fine, 3),
    "no_back_pressure": Mutant("I20: full shards take no rows", ("writer.pressure:Pressure.admit",), _admits_all, 4),
    "dropped_partition_written": Mutant(
        "P3: rows of a dropped partition are not acknowledged",
        ("metadata.chain:require_partitions", "testing.sim.plain_tables:require_partitions"),
        _checks_nothing,
        1140,
    ),
    "written_under_a_lost_name": Mutant(
        "P3: a write is committed to what its client's name means then",
        ("metadata.chain:require_names", "testing.sim.plain_tables:require_names"),
        _checks_nothing,
    ),
    "upload_failures_ignored": Mutant(
        "I3: files are complete before the commit",
        ("writer.committing:put_all", "writer.sealing:put_all"),
        _half_a_store,
    ),
}


def _forgets_soon(original: Any) -> Any:
    def init(self: Any, store: Any, clock: Any, poll_s: float) -> None:
        original(self, store, clock, poll_s, KEEP_REMOVED_S)

    return init


def _remembers_rounds(original: Any) -> Any:
    async def round(self: Any) -> None:
        began_s = self._clock.monotonic_s()
        await original(self)
        self.__dict__.setdefault("rounds", []).append((began_s, self._clock.monotonic_s()))

    return round


# Constants for the small: segments that nobody would index are indexed, removed files are forgotten within seconds.
KEEP_REMOVED_S = 3.0
SMALL_WORLD = (
    Mutant("", ("index.hnsw:Hnsw.worthwhile",), lambda original: lambda self, rows, dim: True),
    Mutant("", ("metadata.mirror:Mirror.__init__",), _forgets_soon),
    Mutant("", ("metadata.mirror:Mirror._round",), _remembers_rounds),
)
