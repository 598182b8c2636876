"""Members for discovery through the metadata service. Each function is one unit of work."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from mishards.metadata.tables import members
from mishards.model import Member, NodeId


def beat(connection: Connection, member: Member) -> None:
    document = msgspec.json.encode(member).decode()
    known = connection.execute(update(members).where(members.c.id == member.id).values(document=document))
    if known.rowcount == 0:
        connection.execute(insert(members).values(id=member.id, document=document))


def read_members(connection: Connection) -> list[Member]:
    documents = connection.scalars(select(members.c.document).order_by(members.c.id))
    return [msgspec.json.decode(document, type=Member) for document in documents]


def forget_member(connection: Connection, node: NodeId) -> None:
    connection.execute(delete(members).where(members.c.id == node))
