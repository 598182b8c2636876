"""Dropping files that nothing needs any more: applied tombstones (P6), and the data of dropped partitions."""

from __future__ import annotations

from mishards.builder.attempt import Attempt
from mishards.builder.policy import DropPartition, DropTombstones, applied_by_all
from mishards.errors import Kind, MishardsError
from mishards.model import File


async def drop_tombstones(attempt: Attempt, task: DropTombstones) -> list[File]:
    """The files that went. The rule is checked again, at the version after the claim: it can only have become truer."""
    snapshot = await attempt.snapshot()
    inputs = snapshot.inputs(task.inputs)
    applied = applied_by_all(snapshot.files)
    needed = [file for file in inputs if file.added > applied]
    if needed:
        raise MishardsError(
            Kind.INTERNAL, f"tombstones of version {needed[0].added} are applied up to version {applied} only"
        )
    await attempt.commit(removed=inputs, added=[])
    return inputs


async def drop_partition(attempt: Attempt, task: DropPartition) -> list[File]:
    """The files that went."""
    inputs = (await attempt.snapshot()).inputs(task.inputs)
    # Read after the files: a file of a partition that the mirror does not know yet was committed after its definition.
    definition = await attempt.definition()
    if any(partition.id == task.partition_id for partition in definition.partitions):
        raise MishardsError(Kind.CONFLICT, f"partition {task.partition_id} is defined")
    await attempt.commit(removed=inputs, added=[])
    return inputs
