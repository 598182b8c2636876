"""Ownership of names for a time (P2). Each function is one unit of work.

Only the database's clock is compared, and only to decide that a lease may be taken; what protects data is the nonce,
which every commit checks in its own transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, true, update

from mishards.errors import Kind, MishardsError
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.tables import leases
from mishards.model import NodeId
from mishards.ports import Lease


def acquire(connection: Connection, name: str, owner: NodeId, nonce: str, ttl_s: float) -> Lease:
    values = {"owner": owner, "nonce": nonce, "until_ms": _until_ms(ttl_s)}
    free = or_(leases.c.owner == owner, leases.c.until_ms <= DatabaseMs())
    taken = connection.execute(update(leases).where(leases.c.name == name, free).values(**values))
    if taken.rowcount == 0:
        holder = connection.scalar(select(leases.c.owner).where(leases.c.name == name))
        if holder is not None:
            raise MishardsError(Kind.LEASE_HELD, f"lease {name} is held by node {holder}", detail=holder)
        connection.execute(insert(leases).values(name=name, **values))
    return Lease(name, owner, nonce, ttl_s)


def renew(connection: Connection, pairs: Sequence[tuple[str, str]], ttl_s: float) -> set[str]:
    """Two statements for hundreds of leases: a writer renews all of its shards every few seconds."""
    wanted = dict(pairs)
    held: set[str] = set()
    for batch in batches(sorted(wanted)):
        rows = connection.execute(
            select(leases.c.name, leases.c.nonce)
            .where(leases.c.name.in_(batch))
            .order_by(leases.c.name)  # one order of locks for everybody
            .with_for_update()
        )
        mine = [row.name for row in rows if row.nonce == wanted[row.name]]
        connection.execute(update(leases).where(leases.c.name.in_(mine)).values(until_ms=_until_ms(ttl_s)))
        held.update(mine)
    return held


def release(connection: Connection, name: str, nonce: str) -> None:
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.nonce == nonce))


def hand_over(connection: Connection, name: str, nonce: str, to: NodeId, new_nonce: str, ttl_s: float) -> bool:
    values = {"owner": to, "nonce": new_nonce, "until_ms": _until_ms(ttl_s)}
    mine = (leases.c.name == name) & (leases.c.nonce == nonce)
    return connection.execute(update(leases).where(mine).values(**values)).rowcount == 1


def read_leases(connection: Connection, prefix: str, expired: bool = False) -> list[Lease]:
    in_force = true() if expired else leases.c.until_ms > DatabaseMs()
    rows = connection.execute(
        select(leases, DatabaseMs().label("now_ms"))
        .where(leases.c.name.startswith(prefix, autoescape=True), in_force)
        .order_by(leases.c.name)
    )
    return [Lease(row.name, NodeId(row.owner), row.nonce, (row.until_ms - row.now_ms) / 1000) for row in rows]


def _until_ms(ttl_s: float) -> ColumnElement[int]:
    return DatabaseMs() + int(ttl_s * 1000)
