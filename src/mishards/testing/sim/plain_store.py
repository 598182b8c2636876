"""The metadata service without a database: the port's contract in plain Python, for runs by the ten thousand.

It passes the suite that the SQL store passes, and a run over either of them is the same (`tests/simulation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from mishards.clock import LOGICAL_BITS, hybrid
from mishards.errors import Kind, MishardsError
from mishards.metadata.definitions import names_of
from mishards.metadata.deltas import stamp
from mishards.metadata.manifest import HEADS_MAX
from mishards.metadata.pins import PINS_MAX, pin_gone
from mishards.metadata.requests import ABORTED, DEFINITION
from mishards.model import Collection, CollectionId, Commit, Delta, FileId, Member, NodeId, Version
from mishards.ports import FORKED, CommitRequest, Head, Import, Lease, Pin, RequestOutcome
from mishards.testing.sim import plain_tables as rules
from mishards.testing.sim.plain_garbage import PlainGarbage
from mishards.testing.sim.plain_tables import Entry, Held, Kept, Listed, Recorded, Tables


class PlainStore(PlainGarbage):
    """`ports.MetadataStore`: nothing waits, so each call is one transaction."""

    async def open(self) -> None:
        """There is nothing to migrate."""

    async def close(self) -> None:
        """There is nothing to disconnect."""

    async def take_ids(self, count: int) -> int:
        first = max(self.tables.next_id, hybrid(self._now_ms()))
        self.tables.next_id = first + count
        return first

    # ----------------------------------------------------------------------------------------------------- definitions

    async def create_collection(self, collection: Collection, request: str = "") -> None:
        with self._transaction() as tables:
            self._record(tables, request, collection.id)
            rules.insert_collection(tables, collection)

    async def replace_collection(self, old: Collection, new: Collection) -> None:
        await self.replace_collections([(old, new)])

    async def replace_collections(self, pairs: Sequence[tuple[Collection, Collection]], request: str = "") -> None:
        with self._transaction() as tables:
            self._record(tables, request, pairs[-1][0].id)
            for old, _ in sorted(pairs, key=lambda pair: pair[0].id):
                rules.require_unchanged(tables, old)
            for old, new in pairs:
                for name in names_of(old) - names_of(new):
                    del tables.names[name.database, name.name]
            for old, new in pairs:
                rules.claim(tables, new.id, names_of(new) - names_of(old))
                entry = tables.collections[old.id]
                newest_ts = max(tables.collections[each.id].last_ts for each, _ in pairs)
                tables.collections[old.id] = entry._replace(collection=new, ddl=entry.ddl + 1, last_ts=newest_ts)

    async def drop_collection(self, collection_id: CollectionId, request: str = "") -> None:
        with self._transaction() as tables:
            self._record(tables, request, collection_id)
            entry = tables.collections.get(collection_id)
            if entry is not None and entry.dropped_ms is None:
                tables.collections[collection_id] = entry._replace(dropped_ms=self._now_ms())
            tables.names = {name: whose for name, whose in tables.names.items() if whose[0] != collection_id}
            rules.drop_pins(tables, lambda kept: kept.is_snapshot and kept.pin.collection_id == collection_id)

    async def heads(self) -> list[Head]:
        return [Head(id, entry.version, entry.ddl, entry.head) for id, entry in self._live()]

    async def collections(self, ids: Sequence[CollectionId]) -> list[tuple[Collection, int]]:
        return [(entry.collection, entry.ddl) for id, entry in self._live() if id in ids]

    # ------------------------------------------------------------------------------------------------------- the chain

    async def delta(self, collection_id: CollectionId, after: Version) -> Delta:
        tables = self.tables
        entry = tables.live(collection_id)
        if after < entry.forgotten:
            after = Version(0)
        files = sorted(tables.files_of(collection_id), key=lambda file: file.id)
        removed = sorted((file.removed, file.id) for file in files if after and file.removed > after)
        uuids = {commit.version: commit.uuid for commit in tables.chain(collection_id)}
        told = range(max(after, entry.version - HEADS_MAX) + 1, entry.version + 1)
        return Delta(
            collection_id=collection_id,
            after=after,
            version=entry.version,
            ts=entry.last_ts,
            head=entry.head,
            previous=uuids.get(after, ""),
            heads={Version(version): uuids[Version(version)] for version in told if version in uuids},
            added=tuple(file for file in files if (file.added > after if after else not file.removed)),
            removed={id: version for version, id in removed},
        )

    async def payloads(self, files: Sequence[FileId]) -> dict[FileId, bytes]:
        return {id: self.tables.payloads[id] for id in sorted(files) if id in self.tables.payloads}

    async def commit(self, request: CommitRequest) -> Commit:
        id, uuid = request.collection_id, request.uuid
        if (id, uuid) in self.tables.commits:
            return self.tables.commits[id, uuid]
        with self._transaction() as tables:
            rules.hold_leases(tables, request.leases)
            rules.record_requests(tables, request.requests, id, uuid, self._now_ms())
            entry = tables.live(id)
            rules.check_partitions(request, entry)
            if request.follows and (id, request.follows) not in tables.commits:
                message = f"commit {request.follows} of collection {id} is lost"
                raise MishardsError(Kind.CONFLICT, message, detail=FORKED)
            rules.check_made_of(tables, request, entry)
            link = Commit(
                collection_id=id,
                version=Version(entry.version + 1),
                uuid=uuid,
                previous=entry.head,
                kind=request.kind,
                ts=max(hybrid(request.now_ms), entry.last_ts + 1),
            )
            rules.remove_files(tables, request, link.version, self._now_ms())
            added = [Listed(stamp(file, link.version, link.ts)) for file in request.added]
            rules.list_files(tables, added, request.payloads)
            tables.collections[id] = entry._replace(version=link.version, head=uuid, last_ts=link.ts)
            tables.commits[id, uuid] = link
            return link

    async def find_commit(self, collection_id: CollectionId, uuid: str) -> Commit | None:
        return self.tables.commits.get((collection_id, uuid))

    async def commits(self, collection_id: CollectionId, after: Version) -> list[Commit]:
        return [commit for commit in self.tables.chain(collection_id) if commit.version > after]

    # -------------------------------------------------------------------------------------------- requests of clients

    async def find_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        return self.tables.outcomes(ids)

    async def abort_requests(self, ids: Sequence[str]) -> dict[str, RequestOutcome]:
        for id in sorted(set(ids) - self.tables.requests.keys()):
            self.tables.requests[id] = Recorded(CollectionId(0), ABORTED, self._now_ms())
        return self.tables.outcomes(ids)

    async def forget_requests(self, older_than_s: float, limit: int) -> int:
        requests, before_ms = self.tables.requests, self._in_ms(-older_than_s)
        old = sorted((each.at_ms, id) for id, each in requests.items() if each.at_ms < before_ms)[:limit]
        for _, id in old:
            del requests[id]
        return len(old)

    # ------------------------------------------------------------------------------------------------------------ pins

    async def create_pin(self, pin: Pin, ttl_s: float | None = None, base: CollectionId | None = None) -> Pin:
        entry = self.tables.live(pin.collection_id)
        earlier = self.tables.pins.get(pin.id)
        if earlier is not None:
            return earlier.pin
        version, ts, definition = entry.version, entry.last_ts, entry.collection
        if base is not None:
            kept = self._pin(base)
            if kept.pin.collection_id != pin.collection_id or not kept.is_snapshot:
                raise MishardsError(Kind.CONFLICT, f"pin {base} is no snapshot of collection {pin.collection_id}")
            version, ts, definition = kept.pin.version, kept.pin.ts, kept.pin.definition
        pin = replace(pin, version=version, ts=ts, definition=definition, expires=ttl_s is not None)
        if len(await self.pins(pin.collection_id)) >= PINS_MAX:
            raise MishardsError(Kind.CAPACITY_EXCEEDED, f"collection {definition.name} has {PINS_MAX} pins")
        rules.insert_pin(self.tables, Kept(pin, None if ttl_s is None else self._in_ms(ttl_s)))
        return pin

    async def renew_pin(self, id: CollectionId, ttl_s: float) -> None:
        kept = self._pin(id)
        if kept.until_ms is None:
            raise pin_gone(id)
        self.tables.pins[id] = Kept(kept.pin, self._in_ms(ttl_s))

    async def drop_pin(self, id: CollectionId) -> None:
        self.tables.pins.pop(id, None)

    async def pins(self, collection_id: CollectionId | None = None) -> list[Pin]:
        kept = (each for _, each in sorted(self.tables.pins.items()) if each.in_force(self._now_ms()))
        return [each.pin for each in kept if collection_id in (None, each.pin.collection_id)]

    async def pinned(self, id: CollectionId) -> tuple[Pin, Delta]:
        pin = self._pin(id).pin
        live = [file for file in self.tables.files_of(pin.collection_id) if file.live_at(pin.version)]
        added = tuple(replace(file, removed=Version(0)) for file in sorted(live, key=lambda file: file.id))
        delta = Delta(
            collection_id=pin.collection_id, after=Version(0), version=pin.version, ts=pin.ts, head="", added=added
        )
        return pin, delta

    async def import_collection(self, imported: Import) -> None:
        id = imported.collection.id
        if id in self.tables.collections:
            return
        with self._transaction() as tables:
            rules.give_folder(tables, id)
            if imported.pin is not None:
                rules.keep_borrowed(tables, imported.pin)
            rules.insert_collection(tables, imported.collection)
            if imported.version == 0:
                return
            entry = tables.collections[id]
            tables.collections[id] = entry._replace(
                head=imported.uuid,
                version=imported.version,
                forgotten=imported.version,
                last_ts=max(imported.ts, entry.last_ts),
            )
            tables.commits[id, imported.uuid] = Commit(
                collection_id=id, version=imported.version, uuid=imported.uuid, previous="", kind="ddl", ts=imported.ts
            )
            rules.list_files(
                tables, [Listed(file, imported.ts >> LOGICAL_BITS) for file in imported.files], imported.payloads
            )
            for pin in imported.pins:
                rules.insert_pin(tables, Kept(pin, None))

    # ---------------------------------------------------------------------------------------------- leases and members

    async def acquire(self, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
        held = self.tables.leases.get(name)
        if held is not None and held.owner != owner and held.until_ms > self._now_ms():
            raise MishardsError(Kind.LEASE_HELD, f"lease {name} is held by node {held.owner}", detail=held.owner)
        self.tables.leases[name] = Held(owner, nonce, self._in_ms(ttl_s))
        return Lease(name, owner, nonce, ttl_s)

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
        held = set()
        for name, nonce in sorted(dict(leases).items()):
            lease = self.tables.leases.get(name)
            if lease is not None and lease.nonce == nonce:
                self.tables.leases[name] = lease._replace(until_ms=self._in_ms(ttl_s))
                held.add(name)
        return held

    async def release(self, name: str, nonce: str) -> None:
        if name in self.tables.leases and self.tables.leases[name].nonce == nonce:
            del self.tables.leases[name]

    async def hand_over(self, name: str, nonce: str, to: NodeId, new_nonce: str, ttl_s: float) -> bool:
        if name not in self.tables.leases or self.tables.leases[name].nonce != nonce:
            return False
        self.tables.leases[name] = Held(to, new_nonce, self._in_ms(ttl_s))
        return True

    async def leases(self, prefix: str, expired: bool = False) -> list[Lease]:
        now_ms = self._now_ms()
        return [
            Lease(name, held.owner, held.nonce, (held.until_ms - now_ms) / 1000)
            for name, held in sorted(self.tables.leases.items())
            if name.startswith(prefix) and (expired or held.until_ms > now_ms)
        ]

    async def beat(self, member: Member) -> None:
        self.tables.members[member.id] = member

    async def members(self) -> list[Member]:
        return [member for _, member in sorted(self.tables.members.items())]

    async def forget_member(self, node: NodeId) -> None:
        self.tables.members.pop(node, None)

    # ------------------------------------------------------------------------------------------------------- in common

    @contextmanager
    def _transaction(self) -> Iterator[Tables]:
        """All that is changed within, or nothing."""
        before = self.tables.copy()
        try:
            yield self.tables
        except MishardsError:
            self.tables = before
            raise

    def _record(self, tables: Tables, request: str, collection_id: CollectionId) -> None:
        rules.record_requests(tables, [request] if request else [], collection_id, DEFINITION, self._now_ms())

    def _live(self) -> list[tuple[CollectionId, Entry]]:
        entries = sorted(self.tables.collections.items())
        return [(id, entry) for id, entry in entries if entry.dropped_ms is None]

    def _pin(self, id: CollectionId) -> Kept:
        kept = self.tables.pins.get(id)
        if kept is None or not kept.in_force(self._now_ms()):
            raise pin_gone(id)
        return kept
