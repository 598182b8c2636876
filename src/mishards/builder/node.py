"""The builder role: compaction, index building and garbage collection, by any number of nodes without state.

    mirror -> policy (what is worth doing) -> claim -> attempt (rewrite, index, materialise, drop) -> layout commit

Two builders may want the same task: the claim lets one of them work, and the commit lets one of them win (P5, I12).
Index building and merging share `threads`, in processes of low priority; what moves no vectors never waits behind them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from mishards.builder.attempt import Attempt, Tools, begin
from mishards.builder.claims import Claims
from mishards.builder.collecting import Collector
from mishards.builder.compactions import Compactions
from mishards.builder.dropping import drop_partition, drop_tombstones
from mishards.builder.echoing import Echoer
from mishards.builder.floors import Floors
from mishards.builder.indexing import build_index
from mishards.builder.materialising import materialise
from mishards.builder.policy import BuildIndex, DropPartition, DropTombstones, Materialise, Merge, Rewrite, Task, choose
from mishards.builder.pool import Pool
from mishards.builder.rests import Rests
from mishards.builder.rewriting import rewrite
from mishards.builder.sweeping import Sweeper
from mishards.builder.workers import Workers
from mishards.clock import Clock
from mishards.config import BuilderSettings
from mishards.errors import Kind, MishardsError
from mishards.metadata.ids import IdBlocks
from mishards.metadata.mirror import Mirror
from mishards.model import CollectionId, File, NodeId
from mishards.ports import IndexKind, MetadataStore, Storage
from mishards.schema.expiry import DROP_MARGIN_S, expired_ts, ttl_s
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.wire.messages import Notice

SETTLED_S = 2.0  # without a commit, and a collection's segments are merged further
LIGHT_TASKS_MAX = 2  # at once, beside the heavy ones
EXPIRY_LOOK_S = 60.0  # between looks at collections whose rows expire
COLLECT_ROUND_S = 30.0  # between rounds of garbage collection, or a tenth of a shorter grace
# Another node or a client was faster: no failure.
OVERTAKEN = frozenset({Kind.CONFLICT, Kind.FENCED, Kind.GONE, Kind.LEASE_HELD, Kind.COLLECTION_NOT_FOUND})

log = structlog.get_logger(__name__)


class BuilderNode:
    """One builder. All methods belong to one event loop."""

    def __init__(
        self,
        node_id: NodeId,
        store: MetadataStore,
        storage: Storage,
        mirror: Mirror,
        ids: IdBlocks,
        settings: BuilderSettings,
        clock: Clock,
        work_dir: Path,
        index_kind: Callable[[str], IndexKind],
        announce: Callable[[Notice], None],
        floors: Floors,
    ) -> None:
        """`work_dir` is this node's alone: what lies there from an earlier run is deleted. `floors` tells which layouts
        are in use."""
        self._threads = settings.threads or os.cpu_count() or 1
        self._heavy_max = settings.processes or self._threads
        pool = Pool(self._heavy_max + LIGHT_TASKS_MAX)
        self._workers = Workers(settings.processes, pool)
        self._tools = Tools(store, storage, mirror, ids, clock, pool, self._workers, work_dir, index_kind, announce)
        self._mirror = mirror
        self._settings = settings
        self._clock = clock
        self._claims = Claims(store, node_id, clock, settings.task_lease_s)
        self._sweeper = Sweeper(store, storage, mirror, clock, settings.orphan_quarantine_s)
        self._collector = Collector(
            store,
            storage,
            self._claims,
            floors,
            self._sweeper,
            settings.garbage_grace_s,
            settings.orphan_quarantine_s,
        )
        self._echoer = Echoer(store, storage, mirror, self._claims, clock)
        self._compactions = Compactions(store, mirror, clock, settings)
        self._ended: Counter[tuple[str, str]] = Counter()  # tasks, by kind and outcome
        self._rests = Rests(clock, settings.interval_s)
        self._running: dict[str, Task] = {}
        self._work: set[asyncio.Task[bool]] = set()
        self._changed: set[CollectionId] = set()  # since their tasks were last chosen and all started
        self._versions: dict[CollectionId, tuple[int, float]] = {}  # last seen of each, and since when; monotonic
        self._looked_s = clock.monotonic_s()  # at the collections whose rows expire
        self._choosing = asyncio.Lock()
        self._loops: list[asyncio.Task[None]] = []
        self._unsubscribe = mirror.on_change(self._changed.add)

    async def start(self) -> None:
        """Begin to work; the mirror must be running."""
        await asyncio.to_thread(shutil.rmtree, self._tools.work_dir, ignore_errors=True)
        self._changed.update(manifest.collection.id for manifest in self._mirror.manifests())
        collect_s = max(self._settings.interval_s, min(COLLECT_ROUND_S, self._settings.garbage_grace_s / 10))
        self._loops = [
            asyncio.create_task(self._repeat(self._start_tasks, self._settings.interval_s), name="builder tasks"),
            asyncio.create_task(self._repeat(self._collector.collect, collect_s), name="builder garbage"),
            asyncio.create_task(self._repeat(self._echoer.echo, self._settings.echo_s), name="builder echoes"),
        ]

    async def stop(self) -> None:
        """Stop working. Tasks under way are cancelled: a commit in flight happens or not, and nothing else counts."""
        self._unsubscribe()
        ending = [*self._loops, *self._work]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._workers.stop()
        self._loops = []

    async def step(self) -> int:
        """One round from a fresh mirror to the end of its tasks: how many were done. For tests and tools."""
        await self._mirror.refresh()
        self._changed.update(manifest.collection.id for manifest in self._mirror.manifests())
        await self._start_tasks()
        return sum(await asyncio.gather(*self._work))

    async def collect(self) -> int:
        """One round of garbage collection: how many records and orphans went."""
        return await self._collector.collect()

    def metrics(self) -> Iterator[Sample]:
        yield c.TASKS_RUNNING.of(len(self._running))
        yield from (c.TASKS.of(count, kind, outcome) for (kind, outcome), count in self._ended.items())
        yield from (c.COLLECTED.of(count, what) for what, count in self._collector.collected.items())
        yield c.QUARANTINED.of(self._sweeper.quarantined)

    async def _repeat(self, action: Callable[[], Coroutine[Any, Any, object]], pause_s: float) -> None:
        while True:
            try:
                await action()
            except MishardsError as error:
                log.warning("builder round failed, the next one tries again", error=error.message)
            except Exception:
                log.exception("builder round failed, the next one tries again")
            await asyncio.sleep(pause_s)

    # ---------------------------------------------------------------------------------------------------------- tasks

    async def _start_tasks(self) -> None:
        """Choose among the collections that changed, and start what there is room for."""
        async with self._choosing:
            self._look_at_expiring()
            await self._compactions.look()
            self._changed.update(self._compactions.asked)
            resting = self._rests.resting()
            for collection_id in sorted(self._changed):
                self._changed.discard(collection_id)  # before the choice: a change during it counts again
                settled = self._is_settled(collection_id)
                tasks = await self._choose(collection_id, resting, settled)
                started = [self._start_task(task) for task in tasks]
                if (
                    not settled
                    or not all(started)
                    or any(name.startswith(f"task/{collection_id}/") for name in resting)
                ):
                    self._changed.add(collection_id)

    def _look_at_expiring(self) -> None:
        """Rows expire without a commit that would tell."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= EXPIRY_LOOK_S:
            self._looked_s = now_s
            collections = (manifest.collection for manifest in self._mirror.manifests())
            self._changed.update(each.id for each in collections if ttl_s(each.properties))

    def _is_settled(self, collection_id: CollectionId) -> bool:
        """Whether the collection, as far as it is known, has not changed for a moment."""
        manifest = self._mirror.get(collection_id)
        now_s = self._clock.monotonic_s()
        if manifest is None:
            self._versions.pop(collection_id, None)
            return True
        version, since_s = self._versions.get(collection_id, (-1, now_s))
        if version != manifest.version:
            self._versions[collection_id] = (manifest.version, now_s)
            return False
        return now_s - since_s >= SETTLED_S

    async def _choose(self, collection_id: CollectionId, resting: set[str], settled: bool) -> list[Task]:
        manifest = self._mirror.get(collection_id)
        if manifest is None:
            return []
        busy = {file_id for task in self._running.values() for file_id in task.inputs}
        return await asyncio.to_thread(  # tens of thousands of files take a while
            choose,
            manifest.collection,
            manifest.live(),
            self._tools.index_kind,
            self._settings,
            busy,
            resting | self._running.keys(),
            settled,
            expired_ts(manifest.collection.properties, self._clock.unix_ms(), DROP_MARGIN_S),
            self._compactions.asked.get(collection_id),
        )

    def _start_task(self, task: Task) -> bool:
        """Whether there was room for it."""
        beside = sum(other.light == task.light for other in self._running.values())
        if beside >= (LIGHT_TASKS_MAX if task.light else self._heavy_max):
            return False
        self._running[task.name] = task
        work = asyncio.create_task(self._carry_out(task), name=task.name)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return True

    async def _carry_out(self, task: Task) -> bool:
        """Whether the task was done. Whatever goes wrong ends this attempt only."""
        began_s = self._clock.monotonic_s()
        try:
            async with self._claims.hold(task.name) as claim, begin(self._tools, task, claim) as attempt:
                files = await self._run(attempt, task)
        except MishardsError as error:
            rest_s = self._rests.add(task.name)
            overtaken = error.kind in OVERTAKEN
            self._ended[task.kind, "overtaken" if overtaken else "failed"] += 1
            level = log.debug if overtaken else log.warning
            level("task not done", task=task.name, error=error.message, kind=error.kind.name, rest_s=round(rest_s, 1))
            return False
        except Exception:
            self._ended[task.kind, "failed"] += 1
            log.exception("task failed", task=task.name, rest_s=round(self._rests.add(task.name), 1))
            return False
        finally:
            del self._running[task.name]
            self._changed.add(task.collection_id)
        self._rests.end(task.name)
        self._ended[task.kind, "done"] += 1
        log.info(
            "task done",
            task=task.name,
            inputs=len(task.inputs),
            rows=sum(file.rows for file in files),
            bytes=sum(file.bytes for file in files),
            seconds=round(self._clock.monotonic_s() - began_s, 3),
        )
        return True

    async def _run(self, attempt: Attempt, task: Task) -> list[File]:
        """The files that the task made or dropped."""
        match task:
            case Merge() | Rewrite():
                return await rewrite(attempt, task, self._threads_each(), self._settings.rest_values + 1)
            case BuildIndex():
                return await build_index(attempt, task, self._threads_each())
            case Materialise():
                if await self._claims.held_elsewhere(f"task/{task.collection_id}/{task.shard}/{Merge.kind}/"):
                    # It would replace that merge's inputs, and merging takes longer than tombstones gather anew.
                    raise MishardsError(Kind.CONFLICT, "another builder merges segments of the shard")
                return await materialise(attempt, task)
            case DropTombstones():
                return await drop_tombstones(attempt, task)
            case DropPartition():
                return await drop_partition(attempt, task)
            case _:
                raise MishardsError(Kind.UNIMPLEMENTED, f"task {task.name} is of an unknown kind")

    def _threads_each(self) -> int:
        """How many threads a heavy task may use, those under way counted."""
        return max(1, self._threads // sum(not task.light for task in self._running.values()))
