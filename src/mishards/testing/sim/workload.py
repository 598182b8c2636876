"""The clients: what they ask for, and what the answers may be.

A few keys, so that writes, deletes and layout work collide all the time. Each row carries a tag of its own, so that an
answer tells which rows it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mishards.errors import Kind, MishardsError
from mishards.model import Consistency
from mishards.proxy.requests import DeleteRequest, QueryRequest, RowsRequest, SearchRequest
from mishards.proxy.writing import PARTLY
from mishards.schema.columns import Column
from mishards.testing.sim.answers import Asked, Session, check_count, check_query, check_search
from mishards.testing.sim.loop import START_S
from mishards.testing.sim.node import LostError, Node
from mishards.wire.definitions import AnyDefinition

if TYPE_CHECKING:
    from mishards.testing.sim.world import World

KEYS = 24
GROUPS = 4
ALL = 1_000  # k of a census
TIMEOUT_S = 6.0
PATIENCE_S = 8.0
FLUSH_S_MAX = 15.0
SNAPSHOT_S_MAX = 15.0  # nothing but the metadata service bounds it, which may be slow, several times
DEFINE_S_MAX = 15.0
SNAPSHOTS_MAX = 2  # of a collection
SPECIALISED_SHARE = 0.4  # of the clients

LEVELS = (Consistency.STRONG, Consistency.SESSION, Consistency.BOUNDED, Consistency.EVENTUALLY)

# It did not happen and never will; everything else leaves it open.
DEFINITE = frozenset(
    {
        Kind.PARAMETER_INVALID,
        Kind.SCHEMA_MISMATCH,
        Kind.PARTITION_NOT_FOUND,
        Kind.COLLECTION_NOT_FOUND,
        Kind.RATE_LIMIT,
    }
)
NEVER = frozenset(  # of what is there
    {
        Kind.INTERNAL,
        Kind.COLLECTION_NOT_FOUND,
        Kind.COLLECTION_NOT_LOADED,
        Kind.PARTITION_NOT_FOUND,
        Kind.PARTITION_NOT_LOADED,
        Kind.INDEX_NOT_FOUND,
    }
)
BROKEN_SHARE = 0.5  # of the changes to a collection that is not whole


def vector_of(tag: int) -> tuple[float, float]:
    """Small whole numbers: scores are exact."""
    return float(tag % 31), float(tag % 37)


Ask = Callable[[Node], Awaitable[str]]


class Client:
    """Asks one proxy after the other, one request at a time, as one session."""

    def __init__(self, world: World, number: int, random: Random) -> None:
        self.name = f"client-{number}"
        self.session = Session()
        self._about = ("", "", "")  # the collection, how it is called, and the partition of the request under way
        self._levels: tuple[Consistency, ...] = LEVELS
        self._asks: int | None = None  # always the same proxy, by its number
        self._world = world
        self._random = random

    def everything(self) -> dict[Ask, int]:
        """What it may ask for, and how often."""
        defining: dict[Ask, int] = {self.define: 5} if self._world.defines else {}
        return defining | {
            self.upsert: 8,
            self.search: 8,
            self.query: 2,
            self.delete: 2,
            self.delete_where: 2,
            self.count: 1,
            self.flush: 1,
            self.snapshot: 1,
            self.query_snapshot: 1,
        }

    def reads(self) -> tuple[Ask, ...]:
        return (self.search, self.query, self.count)

    async def run(self) -> None:
        """Some do a part of all that only, at one proxy and one consistency level: what one client causes to be known
        to a proxy hides what another one should have caused."""
        random = self._random
        everything = self.everything()
        if random.random() < SPECIALISED_SHARE:
            reads = random.random() < 0.5
            everything = {ask: often for ask, often in everything.items() if (ask in self.reads()) is reads}
            self._levels = (random.choice(LEVELS),)
            self._asks = random.randrange(8)
        kinds = [ask for ask, often in everything.items() for _ in range(often)]
        while self._world.busy:
            await asyncio.sleep(random.expovariate(1 / self._world.think_s))
            node = self._proxy()
            if node is not None:
                await self.ask(random.choice(kinds), node)

    async def ask(self, what: Ask, node: Node) -> bool:
        """Whether it was answered. INTERNAL is a defect whatever the cause."""
        world, began_s = self._world, self._world.loop.time()
        kind = what.__name__
        try:
            outcome = await what(node)
        except LostError as error:
            if error.silent and what not in (self.flush, self.define):  # which may take minutes
                world.violated("deadline", f"{kind} at {node.name} since {began_s - START_S:.3f}: {error}")
            world.count(f"{kind}: lost")
            world.note(f"{self.name} {kind} at {node.name} since {began_s - START_S:.3f}: {error}")
            return False
        except MishardsError as error:
            # what is written in part is not tried again with newer definitions
            since_s = world.ready_s if error.detail == PARTLY else began_s
            if error.kind in NEVER and not world.excused(error.kind, *self._about, since_s, node.name):
                world.violated(error.kind.name, f"{kind} at {node.name} since {began_s - START_S:.3f}: {error.message}")
            if error.kind is Kind.RATE_LIMIT and what in (self.delete, self.delete_where):
                world.violated("P15", f"{kind} at {node.name} is refused: {error.message}")
            world.count(f"{kind}: {error.kind.name}")
            world.note(f"{self.name} {kind} at {node.name} since {began_s - START_S:.3f}: {error!r}")
            return False
        world.count(kind)
        world.note(f"{self.name} {kind} at {node.name} since {began_s - START_S:.3f}: {outcome}")
        return True

    def _proxy(self) -> Node | None:
        proxies = [node for node in self._world.nodes.values() if node.ready and "proxy" in node.roles]
        if not proxies:
            return None
        return self._random.choice(proxies) if self._asks is None else proxies[self._asks % len(proxies)]

    def _choose(self) -> str:
        """A collection to ask about."""
        name = self._random.choice(self._world.names)
        self._about = (name, name, "")
        return name

    def _call(self, name: str, partition: str) -> str:
        """How the request calls the collection."""
        names = self._world.templates[name].names
        called = self._random.choice(names) if len(names) > 1 else name
        self._about = (name, called, partition)
        return called

    # ----------------------------------------------------------------------------------------------------- definitions

    async def define(self, node: Node) -> str:
        """Takes something away, or puts back what is missing, step by step; only that at the end."""
        name, world, random = self._choose(), self._world, self._random
        if not world.busy:
            return "; ".join([await self._mend(each, node) for each in world.names])
        template, collection = world.templates[name], world.definitions.of(name)
        missing = template.missing(collection)
        if collection is None or (missing is not None and random.random() >= BROKEN_SHARE):
            return await self._mend(name, node)
        return await self._define(template.broken(collection, random.choice), node)

    async def _mend(self, name: str, node: Node) -> str:
        world, done = self._world, []
        while (missing := world.templates[name].missing(world.definitions.of(name))) is not None:
            done.append(await self._define(missing, node))
        return f"{name} is whole after {', '.join(done) or 'nothing'}"

    async def _define(self, definition: AnyDefinition, node: Node) -> str:
        await node.call(lambda: node.server.proxy.define(definition), DEFINE_S_MAX)
        return type(definition).__name__

    # ---------------------------------------------------------------------------------------------------------- writes

    async def upsert(self, node: Node) -> str:
        """With generated keys, an upsert names the rows to replace; the new ones get other keys."""
        random, world = self._random, self._world
        name = self._choose()
        kind: Literal["insert", "upsert"] = random.choice(("insert", "upsert"))
        generated = world.templates[name].generated
        count = random.choice((1, 1, 2, 3, 6))
        keys = self._keys(name, count)
        tags = [world.new_tag() for _ in range(len(keys) or count)]
        columns = {
            "tag": Column(np.array(tags, np.int64)),
            "g": Column(np.array([random.randrange(GROUPS) for _ in tags], np.int64)),
            "vector": Column(np.array([vector_of(tag) for tag in tags], np.float32)),
        }
        if not generated or (kind == "upsert" and keys):
            columns["id"] = Column(np.array(keys, np.int64))
        elif generated:
            kind = "insert"
        partition = random.choice(world.templates[name].all_partitions)
        called = self._call(name, partition)
        request = RowsRequest(
            kind=kind, collection=called, columns=columns, rows=len(tags), partition=partition, timeout_s=TIMEOUT_S
        )
        written = world.begin_write(name, tags)
        try:
            mutation = await node.call(lambda: node.server.proxy.write(request), PATIENCE_S)
        except MishardsError as error:
            definite = error.kind in DEFINITE or error.message.endswith("nothing was written")
            written.refused = definite and error.detail != PARTLY
            raise
        written.acknowledged(world.loop.time(), mutation.ts, [int(key) for key in mutation.keys])
        self._wrote(name, mutation.ts)
        return f"{kind} {called}/{partition} {written.rows()} at {self._version(name, mutation.ts)}"

    def _keys(self, name: str, count: int) -> list[int]:
        """Some that may be there."""
        if not self._world.templates[name].generated:
            return self._random.sample(range(KEYS), count)
        known = sorted(self._world.history(name).folds[-1])
        return self._random.sample(known, min(count, len(known)))

    async def delete(self, node: Node) -> str:
        name = self._choose()
        keys = self._keys(name, self._random.choice((1, 2, 4))) or [1]
        return await self._delete(node, name, f"id in {keys}", keys)

    async def delete_where(self, node: Node) -> str:
        name = self._choose()
        return await self._delete(node, name, f"g == {self._random.randrange(GROUPS)}", [])

    async def _delete(self, node: Node, name: str, expression: str, keys: list[int]) -> str:
        world = self._world
        partition = self._random.choice(("", "", *world.templates[name].all_partitions))
        called = self._call(name, partition)
        request = DeleteRequest(collection=called, filter=expression, partition=partition, timeout_s=TIMEOUT_S)
        history = world.history(name)
        began, began_s = history.version, world.loop.time()
        mutation = await node.call(lambda: node.server.proxy.delete(request), PATIENCE_S)
        self._wrote(name, mutation.ts)
        if history.fell_back_s < began_s and not world.definitions.changed_since(name, began_s):
            world.check_delete(name, partition, keys, expression, began, mutation)
        return f"{name}/{partition} {expression}: {mutation.count} at {self._version(name, mutation.ts)}"

    async def flush(self, node: Node) -> str:
        name = self._choose()
        await node.call(lambda: node.server.proxy.flush("default", [name]), FLUSH_S_MAX)
        return name

    async def snapshot(self, node: Node) -> str:
        """Of several that are there, the oldest goes (P13)."""
        name = self._choose()
        history = self._world.history(name)
        if len(history.pins) >= SNAPSHOTS_MAX:
            oldest = next(iter(history.pins))
            del history.pins[oldest]
            await node.call(lambda: node.server.proxy.snapshots.drop("default", name, oldest), SNAPSHOT_S_MAX)
            return f"{name}@{oldest} dropped"
        called = f"s{self._world.new_tag()}"
        began_s = self._world.loop.time()
        pin = await node.call(lambda: node.server.proxy.snapshots.create("default", name, called, ""), SNAPSHOT_S_MAX)
        history = self._world.oracle.history_of(pin.collection_id)
        if history.fell_back_s < began_s and not history.dropped:
            history.pins[called] = pin.version
            self._world.pinned[pin.collection_id, called] = pin.definition
        return f"{name}@{called} at {pin.version}"

    # ----------------------------------------------------------------------------------------------------------- reads

    async def query_snapshot(self, node: Node) -> str:
        """Exactly what was there, whatever happened since."""
        asked = self._asked(node, 0.5)
        pins = self._world.history(asked.name).pins
        if not pins:
            return "none is there"
        called = self._random.choice(list(pins))
        asked.level, asked.guarantee_ts = LEVELS[-1], 1
        partitions = self._world.pinned[asked.id, called].partitions
        readable = frozenset(each.id for each in partitions if asked.partition in ("", each.name))
        asked.pinned = (pins[called], readable)
        reading = {**self._reading(asked), "collection": f"{asked.called}@{called}"}
        request = QueryRequest(**reading, output=("id", "tag", "g"), limit=ALL)
        try:
            result = await node.call(lambda: node.server.proxy.query(request), PATIENCE_S)
        except MishardsError as error:
            if error.kind is Kind.COLLECTION_NOT_FOUND and called not in pins:
                return f"{called} was dropped meanwhile"
            if error.kind is Kind.PARTITION_NOT_FOUND and not readable:
                return f"{called} is older than {asked.partition}"
            raise
        check_query(self._world, asked, result)
        return f"{asked.name}@{called}: {result.count} rows at {pins.get(called)}"

    async def search(self, node: Node) -> str:
        random = self._random
        asked = self._asked(node, 0.25)
        limit = random.choice((ALL, ALL, ALL, 3))
        query = (float(random.randrange(31)), float(random.randrange(37)))
        request = SearchRequest(
            **self._reading(asked), queries=np.array([query], np.float32), limit=limit, output=("tag", "g")
        )
        result = await node.call(lambda: node.server.proxy.search(request), PATIENCE_S)
        version = check_search(self._world, asked, result, query, limit)
        self._saw(asked.name, result.ts)
        return f"{asked}: {len(result.keys)} rows at {version}"

    async def query(self, node: Node) -> str:
        asked = self._asked(node, 0.5)
        request = QueryRequest(**self._reading(asked), output=("id", "tag", "g"), limit=ALL)
        result = await node.call(lambda: node.server.proxy.query(request), PATIENCE_S)
        version = check_query(self._world, asked, result)
        self._saw(asked.name, result.ts)
        return f"{asked}: {result.count} rows at {version}"

    async def count(self, node: Node) -> str:
        asked = self._asked(node, 0.0)
        request = QueryRequest(**self._reading(asked), count=True)
        result = await node.call(lambda: node.server.proxy.query(request), PATIENCE_S)
        check_count(self._world, asked, result.count)
        return f"{asked}: {result.count}"

    def _asked(self, node: Node, filtered_share: float) -> Asked:
        random = self._random
        name, level = self._choose(), random.choice(self._levels)
        asked = Asked.now(self._world, node, self.session, name, level)
        if random.random() < filtered_share:
            asked.group = random.randrange(GROUPS)
        asked.partition = random.choice(("", "", "", *self._world.templates[name].all_partitions))
        asked.called = self._call(name, asked.partition)
        return asked

    def _reading(self, asked: Asked) -> dict[str, Any]:
        return {
            "collection": asked.called,
            "partitions": (asked.partition,) if asked.partition else (),
            "filter": "" if asked.group is None else f"g == {asked.group}",
            "consistency": asked.level,
            "guarantee_ts": asked.guarantee_ts,
            "timeout_s": TIMEOUT_S,
        }

    def _wrote(self, name: str, ts: int) -> None:
        self._world.acknowledged_ts.add((self._world.ids[name], ts))
        self._saw(name, ts)

    def _saw(self, name: str, ts: int) -> None:
        """What was forgotten since it was answered binds nobody."""
        history = self._world.history(name)
        if not history.lost_folds or history.version_of_ts(ts) is not None:
            self.session.saw(name, ts)

    def _version(self, name: str, ts: int) -> int | None:
        return self._world.history(name).version_of_ts(ts)
