"""What a process tells of itself whatever its roles: who it is, whom it sees, and how its view of the metadata is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mishards import __version__
from mishards.metadata.mirror import Mirror
from mishards.model import ROLES, CollectionId, NodeId, Role
from mishards.telemetry import catalogue as c
from mishards.telemetry.metrics import Sample
from mishards.wire.membership import Membership


@dataclass(slots=True)
class Incidents:
    """Since the start."""

    push_gaps: int = 0
    forks: int = 0

    def forked(self, collection_id: CollectionId) -> None:
        """The metadata service has lost commits of this collection."""
        self.forks += 1

    def samples(self) -> Iterator[Sample]:
        yield c.FORKS.of(self.forks)
        yield c.PUSH_GAPS.of(self.push_gaps)


def process_samples(
    node_id: NodeId, roles: tuple[Role, ...], mirror: Mirror, membership: Membership, started_s: float, now_s: float
) -> Iterator[Sample]:
    yield from (c.INFO.of(1, node_id, role, __version__) for role in roles)
    yield c.UPTIME.of(now_s - started_s)
    yield c.COLLECTIONS.of(len(mirror.manifests()))
    yield from (c.MEMBERS.of(len(membership.of(role)), role) for role in ROLES)
    yield c.METADATA_UP.of(not mirror.lost)
    yield c.METADATA_AGE.of(now_s - mirror.observed_s)
