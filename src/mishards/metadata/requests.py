"""What became of clients' requests, so that a repetition takes effect once (P3). Each function is one unit of work.

A request's id is written in the transaction that does what it asks for; its primary key refuses a second time. An abort
writes the id with no commit: whatever of that request is still on its way is refused from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, insert, select
from sqlalchemy.exc import IntegrityError

from mishards.errors import Kind, MishardsError
from mishards.metadata.database import DatabaseMs, batches
from mishards.metadata.tables import commits, requests
from mishards.model import CollectionId, Version
from mishards.ports import RequestOutcome

DEFINITION = "definition"  # stands for a commit's uuid where the request changed a definition
ABORTED = ""


def record_requests(connection: Connection, ids: Sequence[str], collection_id: CollectionId, uuid: str) -> None:
    """Part of the transaction that does what they ask for. CONFLICT if one of them has an outcome already."""
    if not ids:
        return
    rows = [{"id": id, "collection_id": collection_id, "uuid": uuid} for id in sorted(ids)]
    try:
        connection.execute(insert(requests).values(at_ms=DatabaseMs()), rows)
    except IntegrityError as error:
        raise MishardsError(
            Kind.CONFLICT, "a request of this commit has taken effect or was given up already"
        ) from error


def find_requests(connection: Connection, ids: Sequence[str]) -> dict[str, RequestOutcome]:
    """Those of the ids that have an outcome."""
    found = {}
    link = and_(commits.c.collection_id == requests.c.collection_id, commits.c.uuid == requests.c.uuid)
    for batch in batches(ids):
        rows = connection.execute(
            select(requests, commits.c.version, commits.c.ts)
            .select_from(requests.outerjoin(commits, link))
            .where(requests.c.id.in_(batch))
        )
        for row in rows:
            found[row.id] = RequestOutcome(
                row.uuid != ABORTED, CollectionId(row.collection_id), Version(row.version or 0), row.ts or 0
            )
    return found


def abort_requests(connection: Connection, ids: Sequence[str]) -> dict[str, RequestOutcome]:
    """Every id has an outcome afterwards: its commit's, or that it never will have one. Loses the race for an id to a
    commit: the transaction is run again, and finds it."""
    found = find_requests(connection, ids)
    given_up = [{"id": id, "collection_id": 0, "uuid": ABORTED} for id in sorted(set(ids) - found.keys())]
    if given_up:
        connection.execute(insert(requests).values(at_ms=DatabaseMs()), given_up)
        found |= {row["id"]: RequestOutcome(False, CollectionId(0), Version(0), 0) for row in given_up}  # type: ignore[misc]
    return found


def forget_requests(connection: Connection, older_than_s: float, limit: int) -> int:
    """Delete the oldest of that age; how many."""
    old = requests.c.at_ms < DatabaseMs() - int(older_than_s * 1000)
    ids = connection.scalars(select(requests.c.id).where(old).order_by(requests.c.at_ms).limit(limit)).all()
    return sum(connection.execute(delete(requests).where(requests.c.id.in_(batch))).rowcount for batch in batches(ids))
