"""One run: a cluster, its clients, its troubles, and at the end peace, in which everything must heal.

set up -> trouble (clients ask, faults happen) -> peace (faults stop, clients ask on) -> last checks
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from msgspec.structs import replace
from structlog import DropEvent
from structlog.typing import EventDict

from mishards.errors import Kind, MishardsError, SetupError
from mishards.metadata.folders import FIRST_LOOK_MS
from mishards.model import Collection, CollectionId, Commit
from mishards.ports import CommitRequest
from mishards.proxy.requests import Mutation
from mishards.testing.sim.bounds import Bounds
from mishards.testing.sim.clocks import SimClock, database_ms
from mishards.testing.sim.database import Database, StoreName, the_workplace
from mishards.testing.sim.definitions import Definitions, Template, told
from mishards.testing.sim.drawn import drawn_bounds, drawn_nodes, drawn_settings, drawn_template
from mishards.testing.sim.faults import Faults
from mishards.testing.sim.forgetting import Forgetting
from mishards.testing.sim.loop import START_S, Process, SimLoop, State
from mishards.testing.sim.network import Network
from mishards.testing.sim.node import LostError, Node, SimServer
from mishards.testing.sim.oracle import History, Oracle, ViolationError
from mishards.testing.sim.services import Service, SimStorage, SimStore
from mishards.testing.sim.workload import PATIENCE_S, Client

START_S_MAX = 30.0  # of a process
PEACE_S = 1.0
DEFINES_SHARE = 0.3  # of the runs: definitions change under load
HEALED_S_MAX = 60.0
COLLECTED_EVERY = 10  # seeds: it takes a while
COLLECTED_S_MAX = 200.0  # mirrors remember what was removed for 120 s, and so long nodes need it
NOTES_MAX = 200_000


@dataclass(slots=True)
class Written:
    """A write: its rows, and what its client was told."""

    name: str
    tags: list[int]
    id: CollectionId  # what had the name then
    began: int  # version of it
    keys: list[int] = field(default_factory=list)  # of an acknowledged one
    told_s: float | None = None
    refused: bool = False
    ts: int = 0
    began_s: float = 0.0

    def acknowledged(self, now_s: float, ts: int, keys: list[int]) -> None:
        self.told_s, self.ts, self.keys = now_s, ts, keys

    def rows(self) -> dict[int, int]:
        """The tags by key."""
        return dict(zip(self.keys, self.tags, strict=True))


class World:
    """Everything there is in one run."""

    def __init__(self, seed: int, store: StoreName) -> None:
        self.seed = seed
        self.store: StoreName = store
        self.random = Random(seed)
        self.loop = SimLoop(Random(seed + 1))  # type: ignore[abstract]  # what nobody here calls is missing
        self.faults = Faults.drawn(Random(seed + 2))
        self.network = self.loop.network = Network(self.loop, self.faults)
        self.metadata = Service(
            self.loop, self.faults, self.faults.metadata, Kind.METADATA_UNAVAILABLE, waits=store != "plain"
        )
        self.objects = Service(self.loop, self.faults, self.faults.storage, Kind.STORAGE_UNAVAILABLE)
        self.metadata.trace = self.objects.trace = self.note
        self.storage = SimStorage(self.objects, self._on_delete)
        self.nodes: dict[str, Node] = {}
        self.names: list[str] = []  # of collections
        self.templates: dict[str, Template] = {}
        self.definitions = Definitions(self.loop.time)
        self.defines = Random(seed + 3).random() < DEFINES_SHARE and not self.faults.forgets
        self.pinned: dict[tuple[CollectionId, str], Collection] = {}  # what snapshots have of definitions
        self.ready_s = 0.0  # when all was set up
        self.busy = False
        self.think_s = self.random.choice((0.05, 0.1, 0.3))
        self.violations: list[str] = []
        self.history_lines: list[str] = []
        self.operations: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.writes: list[Written] = []
        self.ids: dict[str, CollectionId] = {}
        self.clients: list[Client] = []
        self._tag = 0
        self._all: list[Node] = []  # dead ones too
        self.forgetting = Forgetting(self)
        self.acknowledged_ts: set[tuple[CollectionId, int]] = set()  # writes of any kind, by collection and timestamp
        self.reported: set[str] = set()  # uuids in what was logged as critical
        self.committed_by: dict[str, Node] = {}  # commits by uuid
        self.settings = drawn_settings(self.random, pushes=not self.faults.loses_every_push)
        self.settings = replace(self.settings, writer=drawn_bounds(Random(seed + 4), self.settings.writer))
        self.bounds: dict[CollectionId, Bounds] = {}
        self.asked_s: dict[int, float] = {}  # when rows were asked to be written, by tag
        self.database: Database
        self.oracle: Oracle

    # ------------------------------------------------------------------------------------------------- for all to use

    def note(self, line: str) -> None:
        if len(self.history_lines) < NOTES_MAX:
            self.history_lines.append(f"{self.loop.time() - START_S:9.3f} {line}")

    def count(self, operation: str) -> None:
        self.operations[operation] += 1

    def violated(self, invariant: str, message: str) -> None:
        self.note(f"VIOLATION {invariant}: {message}")
        self.violations.append(f"{invariant}: {message}")

    def on_critical(self, logger: object, method: str, event: EventDict) -> EventDict:
        """What the log of a process says loudly."""
        self.note(f"log: {event}")
        self.reported.add(event.get("uuid", ""))
        raise DropEvent

    def history(self, name: str) -> History:
        """Of what has the name, or had it last."""
        return self.oracle.history_of(self.ids[name])

    def excused(self, kind: Kind, name: str, called: str, partition: str, began_s: float, proxy: str) -> bool:
        """Whether a refusal tells of what was so at some time since then, or, if the metadata service did not answer
        the proxy, of what it last knew."""
        lately = self.defines and self.metadata.failed_s.get(proxy, 0.0) >= began_s
        return self.definitions.excuse(kind, name, called, partition, self.ready_s if lately else began_s)

    def new_tag(self) -> int:
        self._tag += 1
        return self._tag

    def begin_write(self, name: str, tags: list[int]) -> Written:
        history = self.history(name)
        self.asked_s |= dict.fromkeys(tags, self.loop.time())
        written = Written(name, tags, history.id, history.version, began_s=self.loop.time())
        self.writes.append(written)
        return written

    def check_delete(
        self, name: str, partition: str, keys: list[int], expression: str, began: int, mutation: Mutation
    ) -> None:
        history = self.history(name)
        end = history.version_of_ts(mutation.ts) if mutation.count else history.version
        if end is None:
            self.violated("P3", f"delete {expression} was acknowledged with timestamp {mutation.ts} of no version")
            return
        for key in keys:
            if not any(key in history.touched[version] for version in range(began + 1, end + 1)):
                self.violated("P3", f"delete of key {key} after version {began} acknowledged at {end} is in no commit")
        if not keys:
            group, readable = int(expression.split("==")[1]), self.definitions.readable(name, partition)
            for key, row in history.folds[began].items():
                if row.group == group and row.partition in readable and history.folds[end].get(key) == row:
                    self.violated("I11", f"{expression} left {key}: {row}, there from version {began} to {end}")

    # --------------------------------------------------------------------------------------------------------- the run

    async def run(self, chaos: Callable[[World], Awaitable[None]]) -> None:
        self.database = await the_workplace().open_database(self.store, lambda: database_ms(self.loop))
        folder = the_workplace().empty_folder()
        self.oracle = Oracle(
            self.storage.objects, self.storage.torn, folder, self.loop.time, self.definitions.partitions
        )
        self.settings = replace(self.settings, data=str(folder))
        await self._set_up()
        self.ready_s = self.loop.time()
        self.note(f"seed {self.seed}: {self.faults.describe()}; {sorted(self.nodes)}; think {self.think_s} s")
        self.busy = self.faults.active = True
        self.clients = [
            Client(self, number, Random(self.random.random())) for number in range(self.random.choice((1, 2, 3)))
        ]
        asking = [asyncio.create_task(client.run()) for client in self.clients]
        async with self.forgetting.possible():
            await chaos(self)
        self._make_peace()
        await asyncio.sleep(PEACE_S)
        self.busy = False
        await asyncio.gather(*asking)
        await self._check_healed()
        await self.forgetting.check()
        if self.seed % COLLECTED_EVERY == 0:
            await self._check_collected()
        self._check_end()

    async def _set_up(self) -> None:
        random = self.random
        for roles in drawn_nodes(random):
            await self.start(self.new_name(roles), roles)
        proxy = next(node for node in self.nodes.values() if "proxy" in node.roles)
        for name in ("a", "b")[: random.choice((1, 1, 2))]:
            await self._create(proxy, name)

    async def _create(self, proxy: Node, name: str) -> None:
        template = self.templates[name] = drawn_template(self.random, name, self.defines)
        while (missing := template.missing(self.definitions.of(name))) is not None:
            await proxy.call(partial(proxy.server.proxy.define, missing), START_S_MAX)
        self.names.append(name)

    def new_name(self, roles: str) -> str:
        return f"{roles.replace(',', '-')}-{len(self._all)}"

    async def start(self, name: str, roles: str) -> Node | None:
        """A process of that name; None if it cannot start now."""
        process = Process(name, self.loop)
        process.skew_ms = self.random.choice((0, 0, 60_000, -3_600_000))
        clock = SimClock(self.loop, process, Random(self.random.random()))
        store: Any = SimStore(
            self.database.store, self.metadata, lambda *done: self._on_commit(node, *done), self._on_define
        )
        settings = replace(self.settings, roles=roles, node_id=name)
        server = SimServer(settings, clock, store, self.storage, self.faults)
        node = Node(self.loop, process, server)
        self._all.append(node)
        self.nodes[name] = node
        try:
            await node.call(server.start, START_S_MAX)
        except (SetupError, MishardsError, LostError) as error:
            self.note(f"{name} does not start: {error}")
            if self.nodes.get(name) is node:
                self.kill(node)
            return None
        node.ready = process.state is State.RUNNING
        return node

    def kill(self, node: Node, silently: bool = False) -> None:
        if self.nodes.get(node.name) is node:
            del self.nodes[node.name]
        node.kill()
        self.network.process_died(node.process, silently)

    def _on_commit(self, node: Node, request: CommitRequest, commit: Commit) -> None:
        if commit.uuid in (known.uuid for known in self.oracle.history_of(commit.collection_id).commits):
            return  # its first answer was lost
        self.committed_by[commit.uuid] = node
        nonces = self.database.nonces()
        for name, nonce in request.leases:
            if nonces.get(name) != nonce:
                self.violated("I1", f"version {commit.version} was committed without lease {name}")
        history = self.oracle.history_of(commit.collection_id)
        defined = self.definitions.defined[history.id].now
        for name in request.names:
            if not defined.is_called(name):
                self.violated("P3", f"a write to {name} was committed to {defined.name}, which is not called so")
        partitions = self.definitions.partitions(history.id)
        bounds = self.bounds.setdefault(history.id, Bounds(history, self.settings.writer))
        full = bounds.before(node, request, partitions)
        try:
            self.oracle.on_commit(request, commit)
        except ViolationError as error:
            self.violated(error.invariant, str(error))
        if full:
            tags = [tag for tag, versions in history.written.items() if commit.version in versions]
            asked_s = min((self.asked_s[tag] for tag in tags), default=0.0)
            for shard in (each for each in full if each.known_s < asked_s):
                self.violated("I20", f"{shard} takes rows that were asked for at {asked_s - START_S:.3f}")
        bounds.after(node, request, partitions, self.loop.time())
        files = f"+{len(request.added)} -{len(request.removed)}"
        self.note(f"commit {commit.kind} {defined.name} version {commit.version} {files}")

    def _on_define(self, call: str, arguments: tuple[Any, ...]) -> None:
        definitions = self.definitions
        match call:
            case "create_collection":
                definitions.on_create(arguments[0])
                self.ids[arguments[0].name] = arguments[0].id
                self.note(f"defined: {told(arguments[0])}")
            case "drop_collection" if definitions.on_drop(arguments[0]):
                history = self.oracle.history_of(arguments[0])
                history.dropped = True
                history.pins.clear()
                self.note(f"dropped: {told(definitions.defined[arguments[0]].now)}")
            case "replace_collections":
                definitions.on_replace(arguments[0])
                self.note(f"defined: {told(arguments[0][-1][1])}")

    def _on_delete(self, path: str) -> None:
        if path in self.oracle.needed_paths():
            self.violated("I4", f"{path}, of a live file, is deleted")

    # ------------------------------------------------------------------------------------------------------- the end

    def _make_peace(self) -> None:
        self.note("peace")
        self.faults.active = False
        self.metadata.down = self.objects.down = False
        self.metadata.cut_off.clear()
        self.objects.cut_off.clear()
        self.network.heal()
        for node in self.nodes.values():
            if node.process.state is State.PAUSED:
                node.process.go_on()

    async def _check_healed(self) -> None:
        """Every proxy answers and writes again, whatever happened, after a while."""
        client = Client(self, 99, Random(self.random.random()))
        for node in [node for node in self.nodes.values() if node.ready and "proxy" in node.roles]:
            for what in client.everything():
                ends_s = self.loop.time() + HEALED_S_MAX
                while not await client.ask(what, node):
                    if self.loop.time() > ends_s:
                        self.violated(
                            "healing", f"{what.__name__} at {node.name} fails {HEALED_S_MAX} s after all faults"
                        )
                        break
                    await asyncio.sleep(0.5)

    async def _check_collected(self) -> None:
        """Nothing is left in storage but what records name, and what may still be committed (P12)."""
        began_s = self.loop.time()
        while (left := self._garbage()) and self.loop.time() < began_s + self._collected_s(left):  # noqa: ASYNC110
            await asyncio.sleep(1.0)
        if left:
            seconds = self.loop.time() - began_s
            self.violated("P12", f"{len(left)} objects are left {seconds:.0f} s after all faults: {sorted(left)[:3]}")

    def _collected_s(self, left: set[str]) -> float:
        """When all of that must be gone. What came into a folder after its collection was forgotten goes later."""
        dropped = (self.oracle.histories[CollectionId(int(path.split("/")[0]))].dropped for path in left)
        return COLLECTED_S_MAX + (FIRST_LOOK_MS / 1000 if all(dropped) else 0.0)

    def _garbage(self) -> set[str]:
        nonces = set(self.database.nonces().values())
        objects = {path for path in self.storage.objects if path.count("/") == 3 and path.split("/")[2] not in nonces}
        needed = self.oracle.needed_paths()
        for collection_id, version in self.database.pinned():  # of snapshots that a client may not know of
            needed |= self.oracle.histories[collection_id].paths_at(version)
        return objects - needed

    def _check_end(self) -> None:
        for path in sorted(self.oracle.needed_paths()):
            if path not in self.storage.objects or path in self.storage.torn:
                self.violated("I4", f"{path}, of a live file, is not in storage")
        for written in self.writes:
            self._check_write(written)
        for failure in self.loop.failures:
            self.violated("exception", failure)

    def _check_write(self, written: Written) -> None:
        named = [self.oracle.history_of(id) for id, _ in self.definitions.named(written.name)]
        committed = {
            tag: [(history.id, version) for history in named for version in history.written.get(tag, [])]
            for tag in written.tags
        }
        for tag, versions in committed.items():
            if len(versions) > 1:
                self.violated("once", f"row {tag} was committed at {versions}")
            forgotten = named[0].fell_back_s > written.began_s  # so may be that it was given up
            if written.refused and not forgotten and any(self._outlived(written, id) for id, _ in versions):
                self.violated("refused", f"row {tag} was refused and committed at {versions}")
        shards = self.templates[written.name].creation.shards
        if shards == 1 and len({tuple(versions) for versions in committed.values() if versions}) > 1:
            self.violated("I10", f"the rows of one write were committed at {committed}")
        if written.told_s is None or written.began_s <= named[0].fell_back_s:
            return  # what was acknowledged and then forgotten: see `_check_put_back`
        for history in named:
            there = self.definitions.defined[history.id].during(written.began_s, written.told_s)
            if there and self._is_in(written, history):
                partitions = {history.partitions.get(tag) for tag in written.tags} - {None}
                if not any(partitions <= {each.id for each in state.collection.partitions} for state in there):
                    self.violated("dropped", f"rows {written.rows()} were acknowledged in partitions that were dropped")
                return
        self.violated("lost", f"rows {written.rows()}, acknowledged at timestamp {written.ts}, are not all there")

    def _outlived(self, written: Written, id: CollectionId) -> bool:
        """Whether the collection was not dropped in the course of the call, which has nothing to tell of it then."""
        return self.definitions.defined[id].dropped_s > written.began_s + PATIENCE_S

    def _is_in(self, written: Written, history: History) -> bool:
        """Whether an acknowledged write is in that collection."""
        if not written.ts and history.dropped:  # before the answer, which could not tell the version any more
            return all(history.written.get(tag) for tag in written.tags)
        began, end = written.began if history.id == written.id else 0, history.version_of_ts(written.ts)
        return end is not None and all(
            any(key in history.touched[version] for version in range(began + 1, end + 1)) for key in written.keys
        )
