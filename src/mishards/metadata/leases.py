"""Ownership of names for a time (P2). Each function is one unit of work.

Only the database's clock is compared, and only to decide that a lease may be taken; what protects data is the nonce,
which every commit checks in its own transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from mishards.errors import Kind, MishardsError
from mishards.metadata.database import DatabaseMs
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
    held = set()
    for name, nonce in sorted(pairs):  # one order of locks for everybody
        mine = (leases.c.name == name) & (leases.c.nonce == nonce)
        if connection.execute(update(leases).where(mine).values(until_ms=_until_ms(ttl_s))).rowcount:
            held.add(name)
    return held


def release(connection: Connection, name: str, nonce: str) -> None:
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.nonce == nonce))


def read_leases(connection: Connection, prefix: str) -> list[Lease]:
    rows = connection.execute(
        select(leases, DatabaseMs().label("now_ms"))
        .where(leases.c.name.startswith(prefix, autoescape=True), leases.c.until_ms > DatabaseMs())
        .order_by(leases.c.name)
    )
    return [Lease(row.name, NodeId(row.owner), row.nonce, (row.until_ms - row.now_ms) / 1000) for row in rows]


def _until_ms(ttl_s: float) -> ColumnElement[int]:
    return DatabaseMs() + int(ttl_s * 1000)
